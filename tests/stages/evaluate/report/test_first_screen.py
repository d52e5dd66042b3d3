"""A stranger learns from the first screen what to do, why, and what nobody knows."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from stages.core.config import PolicyGate
from stages.evaluate.comparison import compare
from stages.evaluate.earlier import Benchmark, alignment_tax
from stages.evaluate.first_screen import FirstScreen, first_screen
from stages.evaluate.measurements import Measurements
from stages.evaluate.metrics import flat_metrics

Make = Callable[..., Measurements]
GATE = PolicyGate()


def _screen(measured: Measurements, gate: PolicyGate = GATE, card=None, benchmarks=()):
    figures = compare(measured, num_bootstrap_samples=200, seed=0)
    metrics = flat_metrics(measured, figures, card, benchmarks)
    return first_screen(gate, metrics, measured, figures, card, benchmarks)


def _texts(screen: FirstScreen) -> list[str]:
    return [f"{fact.label}: {fact.value}" for fact in screen.facts]


def test_good_policy_is_promoted(make_full_measurements: Make, make_card) -> None:
    screen = _screen(make_full_measurements(), card=make_card())
    assert (screen.decision, screen.level) == ("Promote", "good")
    assert "beat those of the champion" in screen.sentence
    assert "by the judge" in screen.sentence
    assert "1 could not be made" in screen.sentence  # the benchmarks
    assert [fact.level for fact in screen.facts] == ["good"] * 5
    assert screen.champion.startswith("Against the present champion: win rate")


def test_bad_policy_is_refused_with_every_reason(make_measurements: Make) -> None:
    measured = make_measurements()
    worse = replace(measured.replies["base"], kl=[40.0] * 40)
    hacked = replace(measured, replies=measured.replies | {"policy": worse})
    screen = _screen(hacked)
    assert (screen.decision, screen.level) == ("Refuse", "bad")
    for words in ("do not clearly beat", "40.0 nats"):
        assert words in screen.sentence
    warned = _screen(hacked, PolicyGate(action="warn"))
    assert (warned.decision, warned.level) == ("Warning", "warning")
    assert "only warns" in warned.sentence


def test_promotion_by_the_reward_model_alone_is_no_praise(make_measurements: Make) -> None:
    screen = _screen(make_measurements(scorers=()))
    assert (screen.decision, screen.level) == ("Promote", "warning")
    assert "Only the reward model, which PPO maximised, says so." in screen.sentence


def test_what_was_not_measured_is_never_zero(make_measurements: Make) -> None:
    screen = _screen(make_measurements())
    assert _texts(screen)[1] == "Change of the guard model's score: not measured"
    assert _texts(screen)[3:] == [
        "Reward model's accuracy: not measured", "Side effects: not measured"
    ]  # fmt: skip
    assert {fact.level for fact in screen.facts[3:]} == {"unknown"}


def test_without_toxicity_the_alignment_tax_is_shown(
    make_measurements: Make, make_benchmarks
) -> None:
    fact = _screen(make_measurements(), benchmarks=make_benchmarks()).facts[-1]
    assert (fact.label, fact.value) == ("Benchmarks", "−1.0\u00a0points")
    assert "mean of 1 benchmarks" in fact.meaning


def test_alignment_tax_by_hand(make_benchmarks) -> None:
    tax = alignment_tax(make_benchmarks(), "policy", "base")
    assert tax is not None
    assert tax.difference == pytest.approx(0.01)
    assert tax.error == pytest.approx((2 * 0.02**2) ** 0.5)
    assert alignment_tax(make_benchmarks(), "policy", "champion") is None


def test_alignment_tax_counts_a_suite_once_and_no_figure_twice() -> None:
    def row(suite: str, task: str, metric: str, change: float, **more: object) -> Benchmark:
        values = {"sft": {"value": 0.5, "stderr": 0.1}, "policy": {"value": 0.5 + change}}
        return Benchmark.model_validate(
            {"suite": suite, "task": task, "metric": metric, "higher_is_better": True,
             "values": values, **more}
        )  # fmt: skip

    paired = {"differences": {"policy-sft": {"value": -0.1, "stderr": 0.02}}}
    rows = [
        row("arc", "arc_easy", "acc", -0.1, **paired),
        row("arc", "arc_easy", "acc_norm", -0.4),
        row("glue", "glue", "average", 0.3, is_average=True,
            differences={"policy-sft": {"value": 0.3, "stderr": 0.04}}),
        row("glue", "sst2", "acc", 0.9),
        row("crows_pairs", "crows_pairs_english", "pct_stereotype", 0.9),
        Benchmark(suite="mmlu", task="mmlu_law", metric="", problem="no data"),
    ]  # fmt: skip
    tax = alignment_tax(rows, "policy", "sft")
    assert tax is not None
    assert (tax.difference, tax.num_benchmarks) == (pytest.approx(0.1), 2)
    assert tax.error == pytest.approx((0.02**2 + 0.04**2) ** 0.5 / 2)
