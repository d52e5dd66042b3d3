"""What earlier stages measured and the report shows again: the reward model's card, benchmarks."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.core.artifacts import Artifact
from stages.core.errors import UserError
from stages.core.statistics import Estimate

ACCURACY = "reward_model_accuracy"
BASELINES = {
    "length_baseline_accuracy": "reward_model_minus_length",
    "bag_of_words_accuracy": "reward_model_minus_bag_of_words",
}
"""Of the card's rows: accuracies of what needs no reward model, and its lead over each."""
NOT_AVERAGED = ("crows_pairs", "perplexity")
"""Suites whose figures say nothing about abilities."""


class _Read(BaseModel):
    """Only what the report shows is read; more may be there."""

    model_config = ConfigDict(frozen=True, extra="ignore")


Read = TypeVar("Read", bound=_Read)


class CardRow(_Read):
    """One figure of the card."""

    name: str
    label: str
    explanation: str = ""
    value: float
    low: float | None = None
    high: float | None = None
    is_share: bool = True

    @property
    def estimate(self) -> Estimate:
        """Without an interval it is a point."""
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        return Estimate(self.value, low, high)


class CardTable(_Read):
    """A table of the card, cells as they are to be shown."""

    title: str
    explanation: str = ""
    columns: list[str]
    rows: list[list[Any]]


class CardPlot(_Read):
    """``plots/<name>.png`` beside the card."""

    name: str = Field(pattern=r"^\w+$")
    title: str = ""
    caption: str = ""


class Card(_Read):
    """How the reward model does on held-out pairs."""

    num_pairs: int
    rows: list[CardRow]
    tables: list[CardTable] = []
    plots: list[CardPlot] = []
    worst_pairs: list[dict[str, Any]] = []

    notes: list[str] = []

    def row(self, name: str) -> CardRow | None:
        return next((row for row in self.rows if row.name == name), None)

    @property
    def accuracy(self) -> Estimate | None:
        """Share of the pairs that it ranks as people did."""
        row = self.row(ACCURACY)
        return None if row is None else row.estimate

    @property
    def best_baseline(self) -> CardRow | None:
        """The accuracy of the best of what needs no reward model."""
        rows = [row for row in map(self.row, BASELINES) if row is not None]
        return max(rows, key=lambda row: row.value, default=None)

    @property
    def lead(self) -> Estimate | None:
        """How far the reward model's accuracy lies above the best baseline's, on the same pairs."""
        best = self.best_baseline
        row = None if best is None else self.row(BASELINES[best.name])
        return None if row is None else row.estimate


class BenchmarkValue(_Read):
    """One model's figure and its standard error."""

    value: float
    stderr: float | None = None


class Benchmark(_Read):
    """One benchmark, all models."""

    suite: str
    task: str
    metric: str
    higher_is_better: bool | None = None
    """None where nothing was measured."""
    is_average: bool = False
    """Over tasks of its suite."""
    chance: float | None = None
    """What guessing gives."""
    num_questions: int | None = None
    values: dict[str, BenchmarkValue | None] = {}
    differences: dict[str, BenchmarkValue | None] = {}
    """Later minus earlier model on the same questions, by ``<later>-<earlier>``."""
    problem: str | None = None

    def value(self, model: str) -> BenchmarkValue | None:
        """A model's figure, if it is a number."""
        found = self.values.get(model)
        return found if found is not None and math.isfinite(found.value) else None

    def difference(self, first: str, second: str) -> BenchmarkValue | None:
        """How far the first model lies above the second, with the standard error: that of the same
        questions where it is known, else as of different ones."""
        known = self.differences.get(f"{first}-{second}")
        if known is not None and math.isfinite(known.value):
            return known
        left, right = self.value(first), self.value(second)
        if left is None or right is None:
            return None
        errors = [item.stderr for item in (left, right) if item.stderr is not None]
        error = math.hypot(*errors) if len(errors) == 2 else None
        return BenchmarkValue(value=left.value - right.value, stderr=error)

    @property
    def is_headline(self) -> bool:
        """MMLU's single subjects are too many to look at each."""
        return self.suite != "mmlu" or self.is_average


class _Benchmarks(_Read):
    rows: list[Benchmark]


@dataclass(frozen=True)
class Tax:
    """What alignment cost on the benchmarks of abilities: mean over them of the difference, in
    shares, and its standard error."""

    first: str
    second: str
    difference: float
    error: float | None
    num_benchmarks: int


def read_card(artifact: Artifact) -> Card:
    """The card of the reward model.

    Raises:
        UserError: it is damaged.
    """
    return _read(Card, artifact.locate() / "card.json", "reward_model_card")


def read_benchmarks(artifact: Artifact) -> list[Benchmark]:
    """The benchmarks' figures.

    Raises:
        UserError: they are damaged.
    """
    return _read(_Benchmarks, artifact.locate() / "benchmarks.json", "benchmarks").rows


def alignment_tax(benchmarks: Sequence[Benchmark], first: str, second: str) -> Tax | None:
    """The mean difference of two models over suites and tasks that measure abilities: a suite's
    average where it has one, else the first figure of each task. None where there is none."""
    rows = [
        row
        for row in benchmarks
        if row.higher_is_better and row.suite not in NOT_AVERAGED and row.difference(first, second)
    ]
    averaged = {row.suite for row in rows if row.is_average and row.task == row.suite}
    chosen: dict[str, BenchmarkValue] = {}
    for row in rows:
        difference = row.difference(first, second)
        is_taken = row.task == row.suite if row.suite in averaged else not row.is_average
        if is_taken and difference is not None:
            chosen.setdefault(row.task, difference)
    if not chosen:
        return None
    errors = [item.stderr for item in chosen.values() if item.stderr is not None]
    return Tax(
        first,
        second,
        sum(item.value for item in chosen.values()) / len(chosen),
        math.hypot(*errors) / len(chosen) if len(errors) == len(chosen) else None,
        len(chosen),
    )


def _read(kind: type[Read], path: Path, stage: str) -> Read:
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        problem = str(error).splitlines()[0]
        raise UserError(f"{path}: {problem}; run the stage {stage} again") from error
