"""The harness's tasks, on the Hub's data or on a local folder's.

For local data a task file is written that includes the harness's own definition, so that prompts,
choices and metrics are the same, and names other data. A task that cannot be asked is no error but
a ``Problem``, which the result states.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lm_eval.tasks
import yaml
from lm_eval.api.metrics import weighted_perplexity
from lm_eval.api.registry import register_aggregation
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from stages.benchmarks.chance import Baselines, baselines
from stages.benchmarks.suites import (
    GLUE,
    MMLU_DEFINITIONS,
    OTHERS,
    SUPER_GLUE,
    TaskSource,
    mmlu_subject,
)
from stages.core.errors import UserError
from stages.core.schemas import write_jsonl
from stages.core.sources import read_records

DEFINITIONS = Path(lm_eval.tasks.__file__).parent
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
PASSAGE_CHARACTERS = 4000
"""Length of the pieces of a text whose perplexity is measured."""
WEIGHTED_PERPLEXITY = "finite_weighted_perplexity"
"""The harness's aggregation of perplexities, which fails where one is too large for a number: of
words, in a text without spaces."""
EXAMPLES_FROM_QUESTIONS = "worked examples are other questions of the same file"


class Problem(NamedTuple):
    """Why a task is not measured."""

    suite: str
    name: str
    reason: str


class BenchmarkTask(NamedTuple):
    """A task that is ready to be asked."""

    suite: str
    name: str
    task: Task
    num_questions: int
    num_fewshot: int
    baselines: Baselines
    cost: int
    """Tokens to read, roughly."""
    category: str = ""
    note: str = ""


class Data(NamedTuple):
    """A task's local files by split, and what they mean for the definition."""

    files: dict[str, Path]
    overrides: dict[str, Any]
    note: str = ""


def prepare(
    suites: Sequence[str],
    folder: Path | None,
    texts: Sequence[Path],
    work: Path,
    *,
    num_fewshot: int,
    limit: int,
) -> tuple[list[BenchmarkTask], list[Problem]]:
    """The tasks of ``suites``, and those that cannot be asked.

    Args:
        folder: local data; None: each task's own data set on the Hub.
        work: a folder for task files and converted data.
        num_fewshot: worked examples before each question; -1: as the definition says.
        limit: questions of each task; 0: all.
    """
    manager = TaskManager(include_defaults=False)
    ready: list[BenchmarkTask] = []
    problems: list[Problem] = []
    unreachable: dict[str, str] = {}
    for suite in suites:
        splitter = _MMLU(work / "mmlu")
        sources = perplexity_sources(texts) if suite == "perplexity" else task_sources(suite)
        for source in sources:
            try:
                if suite == "perplexity":
                    definition, note = _text_definition(source, work), ""
                elif folder is None:
                    definition, note = DEFINITIONS / source.definition, ""
                else:
                    definition, note = _local_definition(source, folder, work, splitter)
                task = _load(manager, definition, source, folder, unreachable)
                ready.append(_ready(suite, source, task, num_fewshot, limit, note))
            except UserError as error:
                problems.append(Problem(suite, source.name, str(error)))
            except MemoryError:
                raise
            except Exception as error:  # of a library, on data that nobody has thought of
                reason = f"{type(error).__name__}: {_one_line(error)}"
                problems.append(Problem(suite, source.name, reason))
    return ready, problems


def task_sources(suite: str) -> Sequence[TaskSource]:
    """The tasks of a suite of the harness."""
    if suite == "mmlu":
        files = sorted((DEFINITIONS / MMLU_DEFINITIONS).glob("mmlu_*.yaml"))
        definitions = [load_yaml(file, resolve_func=False) for file in files]
        return [
            mmlu_subject(item["task"].removeprefix("mmlu_"), item["tag"]) for item in definitions
        ]
    return {"glue": GLUE, "super_glue": SUPER_GLUE, **OTHERS}[suite]


def perplexity_sources(texts: Sequence[Path]) -> list[TaskSource]:
    """A task for each text file, named after it in characters that names of metrics may have."""
    names: list[str] = []
    for path in texts:
        stem = re.sub(r"\W+", "_", path.name.partition(".")[0]).strip("_")
        numbered = (f"{stem}_{number}" for number in itertools.count(2))
        names.append(next(name for name in itertools.chain([stem], numbered) if name not in names))
    return [
        TaskSource(
            f"perplexity_{name}",
            "",
            str(path),
            "test",
            ("text",),
            takes_examples=False,
        )
        for name, path in zip(names, texts, strict=True)
    ]


# ------------------------------------------------------------------------------------ helpers


@register_aggregation(WEIGHTED_PERPLEXITY)
def _weighted_perplexity(items: Sequence[tuple[float, float]]) -> float:
    try:
        return float(weighted_perplexity(items))
    except OverflowError:
        return math.inf


def _local_definition(
    source: TaskSource, folder: Path, work: Path, mmlu: "_MMLU"
) -> tuple[Path, str]:
    """A task file on the local data, and what is to be said of it."""
    files = {source.split: _find(folder / source.folder, source.split, "validation", "test")}
    if examples := _look_for(folder / source.folder, source.examples):
        files[source.examples] = examples
    for file in files.values():
        _check_columns(file, source.columns)
    if source.subject:
        files = {split: mmlu.part(file, source.subject) for split, file in files.items()}
    changes: dict[str, Any] = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {
            "data_files": {split: str(file) for split, file in files.items()},
            "cache_dir": str(work / "datasets"),
        },
    }
    original = load_yaml(DEFINITIONS / source.definition, resolve_func=False)
    splits = ("training_split", "validation_split", "test_split", "fewshot_split")
    missing = [name for name in splits if original.get(name) and original[name] not in files]
    changes |= dict.fromkeys(missing)
    note = ""
    if source.examples not in files:
        note = EXAMPLES_FROM_QUESTIONS
        # The harness leaves the asked question out where both splits are called the same.
        changes["fewshot_split"] = source.split if original.get("test_split") else None
    include = {"include": str(DEFINITIONS / source.definition)}
    return _write_definition(work, source.name, {**include, **changes}), note


def _text_definition(source: TaskSource, work: Path) -> Path:
    """A task file for the perplexity of a text, which is cut into passages."""
    passages = work / "texts" / f"{source.name}.jsonl"
    passages.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": passage} for passage in _passages(Path(source.folder))]
    if not rows:
        raise UserError(f"{source.folder}: holds no text")
    write_jsonl(passages, rows)
    metrics = {
        "word_perplexity": WEIGHTED_PERPLEXITY,
        "byte_perplexity": WEIGHTED_PERPLEXITY,
        "bits_per_byte": "bits_per_byte",
    }
    return _write_definition(
        work,
        source.name,
        {
            "task": source.name,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {"test": str(passages)},
                "cache_dir": str(work / "datasets"),
            },
            "test_split": "test",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "text",
            "num_fewshot": 0,
            "metric_list": [
                {"metric": metric, "aggregation": aggregation, "higher_is_better": False}
                for metric, aggregation in metrics.items()
            ],
        },
    )


def _write_definition(work: Path, name: str, content: Mapping[str, Any]) -> Path:
    path = work / "tasks" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
    return path


def _load(
    manager: TaskManager,
    definition: Path,
    source: TaskSource,
    folder: Path | None,
    unreachable: dict[str, str],
) -> Task:
    """The task with its data."""
    where = str(folder / source.folder) if folder and source.definition else source.name
    if folder is None and source.definition:
        where = str(load_yaml(definition, resolve_func=False)["dataset_path"])
        if where in unreachable:  # fifty-seven tries would take as many waits
            raise UserError(unreachable[where])
    try:
        (task,) = manager.load([str(definition)])["tasks"].values()
    except Exception as error:  # of datasets, of the Hub, of the definition's own code
        reason = f"{where}: cannot be read: {_one_line(error)}"
        if folder is None:
            unreachable[where] = reason
        raise UserError(reason) from None
    return task


def _ready(
    suite: str, source: TaskSource, task: Task, num_fewshot: int, limit: int, note: str
) -> BenchmarkTask:
    """Set the worked examples, and look at every question that will be asked."""
    default = task.config.num_fewshot
    count = default or 0
    if num_fewshot >= 0 and default != 0 and source.takes_examples:
        count = num_fewshot
    task.set_config(key="num_fewshot", value=count)
    num_questions = min(limit or len(task.eval_docs), len(task.eval_docs))
    try:
        looked_at = baselines(task, num_questions)
    except UserError as error:
        raise UserError(f"{source.folder}: {error}") from None
    except Exception as error:  # of the definition's code, on data that it was not made for
        raise UserError(f"{source.folder}: does not fit the task: {_one_line(error)}") from None
    # Worked examples that are the same before each question are read once.
    shared = source.examples == "dev"
    cost = looked_at.num_characters * (1 if shared else 1 + count) // 4
    return BenchmarkTask(
        suite,
        source.name,
        task,
        num_questions,
        count,
        looked_at,
        max(cost, 1),
        source.category,
        note if count else "",
    )


class _MMLU:
    """Splits MMLU's files, which hold all subjects, by subject; each file is read once."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._subjects: dict[Path, dict[str, list[dict[str, Any]]]] = {}

    def part(self, file: Path, subject: str) -> Path:
        if file not in self._subjects:
            subjects: dict[str, list[dict[str, Any]]] = {}
            for record in _records(file):
                subjects.setdefault(str(record.get("subject")), []).append(record)
            self._subjects[file] = subjects  # whole, or not at all
        rows = self._subjects[file].get(subject)
        if not rows:
            raise UserError(f"{file}: no question whose column subject is {subject}")
        path = self._work / file.name.partition(".")[0] / f"{subject}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, rows)
        return path


def _find(folder: Path, *splits: str) -> Path:
    found = next(filter(None, (_look_for(folder, split) for split in splits)), None)
    if found is None:
        raise UserError(f"{folder}: has no {splits[0]}.jsonl or {splits[0]}.jsonl.gz")
    return found


def _look_for(folder: Path, split: str) -> Path | None:
    places = (folder / f"{split}{suffix}" for suffix in SUFFIXES)
    return next((place for place in places if place.is_file()), None)


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    first = next(_records(file), None)
    if first is None:
        raise UserError(f"{file}: is empty")
    for column in columns:
        if column not in first:
            raise UserError(f"{file}: has no column {column}; it has {', '.join(first)}")


def _records(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as raw:
        for record in read_records(file, raw):
            if record.fields is None:
                raise UserError(f"{file}:{record.line}: {record.reason}")
            yield record.fields


def _passages(file: Path) -> Iterator[str]:
    """The texts of a file, the long ones cut between lines where they have any."""
    for record in _records(file):
        text = record.get("text")
        if not isinstance(text, str):
            raise UserError(f"{file}: has no column text; it has {', '.join(record)}")
        if re.search(r"[\ud800-\udfff]", text):  # how bytes that are no UTF-8 are read
            raise UserError(f"{file}: is not UTF-8; convert it: iconv -f LATIN1 -t UTF-8")
        passage = ""
        for line in text.splitlines(keepends=True):
            for start in range(0, len(line), PASSAGE_CHARACTERS):
                piece = line[start : start + PASSAGE_CHARACTERS]
                if len(passage) + len(piece) > PASSAGE_CHARACTERS and passage.strip():
                    yield passage.strip()
                    passage = ""
                passage += piece
        if passage.strip():
            yield passage.strip()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
