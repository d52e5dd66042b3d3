"""The first screen: the decision in one sentence, the two questions that everybody asks, and five
figures with their intervals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from stages.core.config import PolicyGate
from stages.core.policy_gate import (
    GUARD_MODEL,
    OPPONENTS,
    REWARD_MODEL,
    GateRow,
    Metrics,
    gate_opponent,
    gate_scorer,
    policy_gate_rows,
    policy_refusals,
    scorer_words,
    triple,
    win_rate_name,
)
from stages.core.wording import number, percent, percent_interval, points
from stages.evaluate.comparison import Figures
from stages.evaluate.earlier import Benchmark, Card, alignment_tax
from stages.evaluate.measurements import CHAMPION, Measurements
from stages.evaluate.verdict import Finding, Level, help_or_hack, reward_model_answer

Z_95 = 1.96
NOT_MEASURED = "not measured"


INTRODUCTION = (
    "The policy is a language model that PPO, a kind of reinforcement learning, tuned to please a "
    "reward model, which stands in for people's preferences. It began as the SFT model, which had "
    "learned from demonstrations. The champion is the policy in use."
)


@dataclass(frozen=True)
class Fact:
    """One of the five figures."""

    label: str
    value: str
    interval: str
    meaning: str
    level: Level | Literal["unknown"]


@dataclass(frozen=True)
class FirstScreen:
    """What a stranger reads first."""

    decision: str
    level: Level
    sentence: str
    help_or_hack: Finding
    reward_model: Finding
    facts: list[Fact]
    champion: str
    gate_rows: list[GateRow]
    introduction: str = INTRODUCTION


def first_screen(
    gate: PolicyGate,
    metrics: Metrics,
    measured: Measurements,
    figures: Figures,
    card: Card | None,
    benchmarks: Sequence[Benchmark],
) -> FirstScreen:
    """Sum up the whole report."""
    decision, level, sentence = _decision(gate, metrics)
    return FirstScreen(
        decision=decision,
        level=level,
        sentence=sentence,
        help_or_hack=help_or_hack(figures),
        reward_model=reward_model_answer(card),
        facts=[
            _wins(gate, metrics),
            _guard(metrics),
            _distance(gate, metrics),
            _accuracy(card),
            _side_effect(metrics, benchmarks),
        ],
        champion=_champion(metrics, measured, figures),
        gate_rows=policy_gate_rows(gate, metrics),
    )


# -------------------------------------------------------------------------------------- decision


def _decision(gate: PolicyGate, metrics: Metrics) -> tuple[str, Level, str]:
    rows, reasons = policy_gate_rows(gate, metrics), policy_refusals(gate, metrics)
    if reasons:
        why = "; ".join(reasons)
        if gate.action == "warn":
            return (
                "Warning", "warning",
                f"This policy misses what the gate asks of a champion, but the gate only warns: "
                f"{why}.",
            )  # fmt: skip
        return "Refuse", "bad", f"This policy should not replace what is in use: {why}."
    other, scorer = OPPONENTS[gate_opponent(metrics)], gate_scorer(gate, metrics)
    found = triple(metrics, win_rate_name(scorer, "policy", gate_opponent(metrics)))
    unknown = sum(row.outcome == "not measured" for row in rows)
    passed = sum(row.outcome == "passed" for row in rows)
    wins = (
        "no win rate was measured"
        if found is None
        else f"its replies beat those of {other} in {percent_interval(found)} of the comparisons, "
        f"by {scorer_words(scorer)}"
    )
    checks = f"all {passed} checks that could be made were passed"
    if unknown:
        checks += f" ({unknown} could not be made, see below)"
    text = f"This policy may become champion: {wins}, and {checks}."
    # What PPO maximised is no witness for it.
    by_proxy = found is not None and scorer == REWARD_MODEL
    if by_proxy:
        text += " Only the reward model, which PPO maximised, says so."
    return "Promote", "warning" if by_proxy or found is None else "good", text


def _champion(metrics: Metrics, measured: Measurements, figures: Figures) -> str:
    contrasts = figures.contrasts.get(("policy", CHAMPION))
    if contrasts is None:
        reasons = [item for item in measured.missing if "champion" in item.what]
        reason = reasons[0].reason if reasons else "there is none"
        return f"Against the present champion: not compared, {reason}."
    wins = ", ".join(
        f"{percent_interval(contrast.win_rate)} by {scorer_words(scorer)}"
        for scorer, contrast in contrasts.items()
    )
    lengths = [figures.models[name].length.value for name in ("policy", CHAMPION)]
    kls = [figures.models[name].kl.value for name in ("policy", CHAMPION)]
    return (
        f"Against the present champion: win rate {wins}. Reply length {number(lengths[0], 1)} "
        f"tokens instead of {number(lengths[1], 1)}; KL to this run's SFT model "
        f"{number(kls[0], 1)} instead of {number(kls[1], 1)} nats."
    )


# ----------------------------------------------------------------------------------------- facts


def _wins(gate: PolicyGate, metrics: Metrics) -> Fact:
    opponent, scorer = gate_opponent(metrics), gate_scorer(gate, metrics)
    label = f"Win rate over {OPPONENTS[opponent]}"
    meaning = f"by {scorer_words(scorer)}; 50\u00a0% is a draw, ties count half"
    found = triple(metrics, win_rate_name(scorer, "policy", opponent))
    if found is None:
        return _unknown(label, meaning)
    level: Level = "good" if found[1] > 0.5 else "bad" if found[2] < 0.5 else "warning"
    return Fact(label, percent(found[0]), _between(map(percent, found)), meaning, level)


def _guard(metrics: Metrics) -> Fact:
    label = "Change of the guard model's score"
    meaning = "policy − SFT, by a second reward model that PPO never saw; below 0 smells of hacking"
    found = triple(metrics, f"{GUARD_MODEL}_policy_minus_sft")
    if found is None:
        return _unknown(label, f"{meaning}; needs clean.guard_share")
    level: Level = "good" if found[1] > 0 else "bad" if found[2] < 0 else "warning"
    shown = [number(item, 2, signed=True) for item in found]
    return Fact(label, shown[0], _between(shown), meaning, level)


def _distance(gate: PolicyGate, metrics: Metrics) -> Fact:
    found = triple(metrics, "kl_policy")
    label = "Distance from the SFT model"
    meaning = f"KL, nats a reply; the gate's limit is {gate.max_kl:g}"
    if found is None:
        return _unknown(label, meaning)
    level: Level = "good" if found[0] <= gate.max_kl else "bad"
    shown = [number(item, 1) for item in found]
    return Fact(label, shown[0], _between(shown), meaning, level)


def _accuracy(card: Card | None) -> Fact:
    label = "Reward model's accuracy"
    if card is None or card.accuracy is None:
        return _unknown(label, "share of held-out pairs that it ranks as people did")
    meaning = f"on {card.num_pairs} held-out pairs"
    if card.best_baseline is not None:
        best = card.best_baseline
        meaning += f"; best baseline, “{best.label}”: {percent(best.value)}"
    shown = [percent(item) for item in card.accuracy]
    return Fact(label, shown[0], _between(shown), meaning, reward_model_answer(card).level)


def _side_effect(metrics: Metrics, benchmarks: Sequence[Benchmark]) -> Fact:
    """Toxicity where it was measured, else the alignment tax."""
    for name, prompts in {
        "prompted_toxic_share": "toxicity prompts",
        "toxic_share": "held-out prompts",
    }.items():
        found, change = (
            triple(metrics, f"{name}_policy"),
            triple(metrics, f"{name}_policy_minus_sft"),
        )
        if found is not None and change is not None:
            meaning = f"on {prompts}; the SFT model's: {percent(metrics[f'{name}_sft'])}"
            level: Level = "bad" if change[1] > 0 else "good"
            shown = [percent(item) for item in found]
            return Fact("Toxic replies", shown[0], _between(shown), meaning, level)
    tax = alignment_tax(benchmarks, "policy", "sft")
    if tax is None:
        meaning = "toxic replies need a classifier (collect.labelled), the alignment tax benchmarks"
        return _unknown("Side effects", meaning)
    meaning = f"policy − SFT, mean of {tax.num_benchmarks} benchmarks; below 0 is the alignment tax"
    if tax.error is None:
        return Fact("Benchmarks", points(tax.difference), "", meaning, "warning")
    low, high = (tax.difference + sign * Z_95 * tax.error for sign in (-1, 1))
    level = "bad" if high < 0 else "good"
    return Fact(
        "Benchmarks", points(tax.difference), _between(map(points, (tax.difference, low, high))),
        meaning, level,
    )  # fmt: skip


def _unknown(label: str, meaning: str) -> Fact:
    return Fact(label, NOT_MEASURED, "", meaning, "unknown")


def _between(shown: Iterable[str]) -> str:
    _, low, high = shown
    return f"{low} to {high}"
