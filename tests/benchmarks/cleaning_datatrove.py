"""datatrove's side of the cleaning benchmark: its filters in the order of FineWeb, then MinHash.

One process, one job, in datatrove's environment. The words are ``\\w+`` (``regex``) or what
datatrove takes by default (spaCy's, where a punctuation mark is a word, too). Its index of
evaluation data wants lighteval for lists of known tasks; given plain files, it works without.
"""

import gzip
import json
import re
from itertools import pairwise
from pathlib import Path

from cleaning_job import Clock, Job, read_job, write_answer
from datatrove.data import DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.decont.n_grams import (
    NGramsDecontConfig,
    NGramsDecontFilter,
    NGramsDecontIndexer,
)
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.lid import FT176LID
from datatrove.utils.word_tokenizers import WordTokenizer

WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
NUM_WORDS = 13


class RegexWords(WordTokenizer):
    """Words without punctuation."""

    def word_tokenize(self, text: str) -> list[str]:
        return WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [sentence for sentence in SENTENCE_END.split(text.strip()) if sentence]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        begins = [0, *(match.end() for match in SENTENCE_END.finditer(text))]
        return list(pairwise([*begins, len(text)]))


class FilesIndexer(NGramsDecontIndexer):
    """Indexes every text of the files' records."""

    def __init__(self, paths: tuple[str, ...], **rest) -> None:
        super().__init__(**rest)
        self.paths = paths

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> None:
        hashes = {
            number
            for path in self.paths
            for text in texts(Path(path))
            for number in self.compute_hashes(text)
        }
        with self.output_folder.open("evaluation.index.hashes", mode="wb") as file:
            array = self.config.hash_config.np_dtype(list(hashes))
            file.write(array.tobytes())


def texts(path: Path) -> list[str]:
    """All strings in the records of a file, those in lists and objects included."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, list | dict):
            for item in value.values() if isinstance(value, dict) else value:
                walk(item)

    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            walk(json.loads(line))
    return found


def clean(job: Job, clock: Clock) -> None:
    """Filter, redact and decontaminate to ``filtered/``, then deduplicate to ``kept/``."""
    words = RegexWords() if job.word_splitter == "regex" else "eng"
    out = Path(job.out)
    decontamination = NGramsDecontConfig(n_grams=NUM_WORDS, find_overlap_ngrams=False)
    minhash = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14)
    files = [path.name for path in sorted(Path(job.corpus).glob("*.jsonl"))]
    with clock.step("index of evaluation data"):
        index = FilesIndexer(
            job.evaluation,
            output_folder=str(out / "index"),
            config=decontamination,
            language=words,
        )
        execute(job, "index", [index])
    with clock.step("filters"):
        steps = [
            JsonlReader(job.corpus, glob_pattern="*.jsonl", compression=None),
            LanguageFilter(label_only=True),
            GopherRepetitionFilter(language=words),
            GopherQualityFilter(language=words),
            C4QualityFilter(filter_no_terminal_punct=False, language=words),
            FineWebQualityFilter(language=words),
            PIIFormatter(),
            NGramsDecontFilter(
                str(out / "index"),
                decontamination,
                JsonlWriter(str(out / "contaminated"), compression=None),
                words,
            ),
            JsonlWriter(str(out / "filtered"), compression=None),
        ]
        execute(job, "filters", steps, tasks=min(len(files), job.workers))

    def read() -> JsonlReader:
        return JsonlReader(str(out / "filtered"), compression=None)

    folders = {name: str(out / name) for name in ("signatures", "buckets", "removed")}
    with clock.step("signatures"):
        steps = [read(), MinhashDedupSignature(folders["signatures"], minhash, words)]
        execute(job, "signatures", steps, job.workers)
    with clock.step("near duplicates"):
        steps = [MinhashDedupBuckets(folders["signatures"], folders["buckets"], config=minhash)]
        execute(job, "buckets", steps, minhash.num_buckets)
        execute(
            job, "clusters", [MinhashDedupCluster(folders["buckets"], folders["removed"], minhash)]
        )
        steps = [
            read(),
            MinhashDedupFilter(folders["removed"]),
            JsonlWriter(str(out / "kept"), compression=None),
        ]
        execute(job, "dedup", steps, job.workers)


def execute(job: Job, name: str, steps: list, tasks: int = 1) -> None:
    logs = str(Path(job.out, "logs", name))
    workers = min(job.workers, tasks)
    LocalPipelineExecutor(steps, tasks, workers, logs, start_method="fork").run()


def main() -> None:
    job = read_job()
    NGramsDecontIndexer._requires_dependencies = []
    # In place of the address that it would be fetched from.
    FT176LID.MODEL_URL = str(Path(job.settings["language_model"]))
    clock = Clock()
    clean(job, clock)
    write_answer(job, clock)


if __name__ == "__main__":
    main()
