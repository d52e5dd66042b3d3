"""Measurements made up for the tests of the report."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stages.core.config import EvaluateConfig
from stages.evaluate import plots
from stages.evaluate.comparison import compare
from stages.evaluate.earlier import Benchmark, Card
from stages.evaluate.lineage import Lineage, Stage
from stages.evaluate.measurements import Judged, Measure, Measurements, Missing, Replies, Total
from stages.evaluate.metrics import flat_metrics
from stages.evaluate.report import Report

GAIN = {"base": 0.0, "sft": 1.0, "policy": 2.0, "champion": 1.4}
KL = {"base": 8.0, "sft": 0.0, "policy": 3.0, "champion": 2.0}
MODELS = ("base", "sft", "policy")


def _make_measurements(
    *,
    prompt: str = "What is 1 + 1?",
    reply: str = "It is two.",
    count: int = 40,
    models: Sequence[str] = MODELS,
    scorers: Sequence[str] = ("oracle",),
) -> Measurements:
    """Every prompt and reply the same text, but for spaces at its end, since equal replies would be
    ties; scores rise from model to model with some noise."""
    rng = random.Random(0)

    def replies(name: str) -> Replies:
        return Replies(
            texts=[reply + " " * list(GAIN).index(name)] * count,
            lengths=[rng.randint(4, 20) for _ in range(count)],
            ended=[True] * count,
            kl=[KL[name]] * count,
            scores={
                scorer: [GAIN[name] + rng.gauss(0, 0.5) for _ in range(count)]
                for scorer in ("reward_model", *scorers)
            },
        )

    return Measurements(
        prompts=[prompt] * count,
        replies={name: replies(name) for name in models},
        score_mean=1.0,
        score_std=0.5,
        scorers=tuple(scorers),
        bits_per_byte=dict.fromkeys(models, 1.2),
        num_bytes=12_345,
        sft_loss=dict.fromkeys(models, 1.5),
        num_demonstrations=30,
        history=[
            {"episodes": 64.0 * n, "update": n, "score": 0.1 * n, "kl": 0.02 * n * n}
            for n in range(1, 33)
        ],
    )


def _make_full_measurements(text: str = "It is two.") -> Measurements:
    """With a champion, a guard model, a judge, references and safety; every text the same."""
    models = (*MODELS, "champion")
    measured = _make_measurements(
        prompt=text, reply=text, models=models, scorers=("guard_model", "oracle")
    )
    rng = random.Random(1)
    judged = {
        pair: Judged(
            outcomes=[1.0] * 24 + [0.0] * 6 + [0.5] * 10,
            first_lengths=[rng.randint(4, 20) for _ in range(40)],
            second_lengths=[rng.randint(4, 20) for _ in range(40)],
            note=text,
        )
        for pair in (("policy", "sft"), ("policy", "champion"))
    }
    toxic = {name: [1.0, *[0.0] * 39] for name in models}
    return Measurements(
        **{name: getattr(measured, name) for name in (
            "prompts", "replies", "score_mean", "score_std", "scorers", "bits_per_byte",
            "num_bytes", "sft_loss", "num_demonstrations", "history",
        )},
        references=[text] * 20,
        replies_with_reference={name: [text] * 20 for name in models},
        measures={"toxic_share": Measure("Toxic replies", text, toxic)},
        totals={"leaks": Total("Leaks", text, dict.fromkeys(models, 0.0))},
        judged=judged,
        judge_dollars=0.25,
        missing=(Missing("benchmarks", text), Missing("refusals", text, failed=True)),
    )  # fmt: skip


def _make_card(text: str = "Accuracy") -> Card:
    return Card.model_validate(
        {
            "num_pairs": 400,
            "rows": [
                {"name": "reward_model_accuracy", "label": text, "value": 0.8, "low": 0.75,
                 "high": 0.84},
                {"name": "length_baseline_accuracy", "label": text, "value": 0.53, "low": 0.48,
                 "high": 0.58},
                {"name": "reward_model_minus_length", "label": text, "value": 0.27, "low": 0.2,
                 "high": 0.34},
            ],
            "tables": [{"title": text, "columns": [text, "n"], "rows": [[text, "3"]]}],
            "plots": [{"name": "accuracy", "title": text, "caption": text}],
            "worst_pairs": [{"prompt": text, "chosen": text, "rejected": text, "margin": -1.25}],
        }
    )  # fmt: skip


def _make_benchmarks(text: str = "arc_easy") -> list[Benchmark]:
    def value(figure: float) -> dict[str, float]:
        return {"value": figure, "stderr": 0.02}

    return [
        Benchmark.model_validate(
            {"suite": "arc", "task": text, "metric": "acc", "higher_is_better": True,
             "chance": 0.25, "num_questions": 200,
             "values": {"base": value(0.4), "sft": value(0.42), "policy": value(0.41)},
             "problem": None}
        ),
        Benchmark.model_validate(
            {"suite": "mmlu", "task": "mmlu", "metric": "acc", "chance": 0.25,
             "values": {"base": None}, "problem": text}
        ),
    ]  # fmt: skip


def _make_report(
    folder: Path,
    measured: Measurements,
    *,
    card: Card | None = None,
    benchmarks: Sequence[Benchmark] = (),
    text: str = "a",
    config: EvaluateConfig = EvaluateConfig(),
) -> Report:
    """What a report of these measurements is written from, its plots drawn to ``folder``."""
    figures = compare(measured, num_bootstrap_samples=200, seed=0)
    (folder / "plots").mkdir(parents=True)
    for name, figure in plots.draw(measured, figures, benchmarks):
        figure.savefig(folder / "plots" / f"{name}.png", metadata={"Software": None})
    stage = Stage("sft", "0" * 12, 71.5, "1" * 40, "1 × cpu", {"prompt": text})
    return Report(
        config=config,
        measured=measured,
        figures=figures,
        metrics=flat_metrics(measured, figures, card, benchmarks),
        lineage=Lineage(
            [stage], {"sft": "2" * 64, "prompts": "3" * 64},
            {"sft/train": {"read": 12, "kept": 10, "duplicate": 2, "email": 1}},
            {"torch": "1"}, [text],
        ),
        card=card,
        benchmarks=benchmarks,
        samples=range(3),
        plots=frozenset(path.stem for path in (folder / "plots").glob("*.png")),
    )  # fmt: skip


@pytest.fixture(scope="session")
def make_measurements() -> Callable[..., Measurements]:
    """A function (prompt=, reply=, count=, models=, scorers=) that makes up measurements."""
    return _make_measurements


@pytest.fixture(scope="session")
def make_full_measurements() -> Callable[..., Measurements]:
    """A function (text) for measurements of everything there is."""
    return _make_full_measurements


@pytest.fixture(scope="session")
def make_card() -> Callable[..., Card]:
    """A function (text) for a reward model's card whose texts are all that one."""
    return _make_card


@pytest.fixture(scope="session")
def make_benchmarks() -> Callable[..., list[Benchmark]]:
    """A function (text) for two benchmarks, of which one failed."""
    return _make_benchmarks


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    """A function (folder, measured, card=, benchmarks=, text=, config=) that prepares a report."""
    return _make_report
