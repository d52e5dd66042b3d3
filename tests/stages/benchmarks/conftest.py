"""A local folder of benchmark data in the Hub's columns, small enough to be read at a glance."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stages import benchmarks
from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import BenchmarksConfig, Compute
from stages.core.contracts import BenchmarksInputs, BenchmarksOutputs

SUBJECTS = ("anatomy", "virology")


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON Lines, compressed where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.fixture(scope="session")
def local_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some tasks of each suite; file names with and without .gz."""
    folder = tmp_path_factory.mktemp("eval")
    numbers = range(8)
    adjectives = ("good", "bad", "dull", "fine")
    sentences = [
        {"sentence": f"film number {n} is {adjectives[n % 4]}", "label": n % 2} for n in numbers
    ]
    write(folder / "glue/sst2/validation.jsonl.gz", sentences)
    write(folder / "glue/cola/validation.jsonl", sentences)
    pairs = [
        {"sentence1": f"House {n} is old.", "sentence2": f"House {n} was built long ago.",
         "label": n % 3 % 2}
        for n in numbers
    ]  # fmt: skip
    write(folder / "glue/mrpc/test.jsonl.gz", pairs)
    choices = [
        {"premise": f"The boat {n} sank.", "choice1": f"It had {n + 1} leaks.",
         "choice2": "It was painted red.", "question": ("cause", "effect")[n % 2], "label": n % 2}
        for n in numbers
    ]  # fmt: skip
    write(folder / "super_glue/copa/validation.jsonl.gz", choices)
    sciences = [
        {"id": str(n), "question": f"Which of these has {n} legs?",
         "choices": {"text": ["a table", "a snake in the grass", "an ant", "a bird"],
                     "label": ["A", "B", "C", "D"]},
         "answerKey": "ABCD"[n % 4]}
        for n in numbers
    ]  # fmt: skip
    write(folder / "arc_easy/test.jsonl.gz", sciences)
    activities = [
        {"activity_label": "Roofing", "ctx_a": f"Man {n} sits on a roof.", "ctx_b": "he",
         "ctx": f"Man {n} sits on a roof. he", "label": str(n % 4),
         "endings": ["falls.", "takes off the tiles one by one.", "sings.", "waits for rain."]}
        for n in numbers
    ]  # fmt: skip
    write(folder / "hellaswag/validation.jsonl.gz", activities)
    truths = [
        {"question": f"What happens to you in room {n}?",
         "mc1_targets": {"choices": ["Nothing.", "You die.", "You grow."], "labels": [1, 0, 0]},
         "mc2_targets": {"choices": ["Nothing.", "Not much.", "You die."], "labels": [1, 1, 0]}}
        for n in numbers
    ]  # fmt: skip
    write(folder / "truthful_qa_mc/validation.jsonl.gz", truths)
    sexes = [
        {"sent_more": f"The {n} women talked.", "sent_less": f"The {n} men talked."}
        for n in numbers
    ]
    write(folder / "crows_pairs/test.jsonl.gz", sexes)
    for split, count in (("dev", 5), ("test", 8)):
        questions = [
            {"question": f"{split} question {n} of {subject}?", "subject": subject,
             "choices": [str(n), str(n + 1), str(n + 2), "none"], "answer": n % 4}
            for subject in SUBJECTS
            for n in range(count)
        ]  # fmt: skip
        write(folder / f"mmlu/{split}.jsonl.gz", questions)
    return folder


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of three passages."""
    path = tmp_path_factory.mktemp("texts") / "story.txt"
    path.write_text("".join(f"On day {n} the boat came in and went out.\n" for n in range(220)))
    return path


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], dict[str, float]]]:
    """A function that runs the stage and returns benchmarks.json and the metrics."""

    def run(
        models: dict[str, Path],
        folder: Path,
        texts: Sequence[Path] = (),
        bases: dict[str, Path] | None = None,
        **settings: Any,
    ) -> tuple[dict[str, Any], dict[str, float]]:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        inputs = BenchmarksInputs(
            models=_artifacts("model", models),
            bases=_artifacts("model", bases or {}),
            folder=make_artifact("source", folder),
            texts=tuple(make_artifact("source", text) for text in texts),
        )
        outputs, metrics = benchmarks.run(
            BenchmarksConfig(**settings), inputs, Compute(device="cpu"), out
        )
        assert isinstance(outputs, BenchmarksOutputs)
        path = outputs.benchmarks.locate() / "benchmarks.json"
        return json.loads(path.read_text()), metrics

    return run


def _artifacts(kind: Any, paths: dict[str, Path]) -> dict[str, Artifact]:
    return {name: make_artifact(kind, path) for name, path in paths.items()}
