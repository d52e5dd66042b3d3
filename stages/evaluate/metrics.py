"""The figures under flat names, as MLflow, the gate and the registry want them, and the replies."""

import re
from collections.abc import Sequence

from stages.core.policy_gate import win_rate_name
from stages.core.statistics import Estimate
from stages.evaluate.comparison import Figures
from stages.evaluate.earlier import ACCURACY, BASELINES, Benchmark, Card
from stages.evaluate.measurements import REWARD_MODEL, Measurements


def flat_metrics(
    measured: Measurements,
    figures: Figures,
    card: Card | None,
    benchmarks: Sequence[Benchmark],
) -> dict[str, float]:
    """Every figure under one flat name: ``kl_policy``, ``oracle_sft_minus_base_low``,
    ``win_rate_policy_vs_champion`` … The reward model's scores are named ``score``, those of other
    scorers as the scorer, and their win rates begin with it. What was not measured has no name."""
    metrics: dict[str, float] = {}

    def add(name: str, estimate: Estimate) -> None:
        metrics[name] = estimate.value
        metrics[f"{name}_low"] = estimate.low
        metrics[f"{name}_high"] = estimate.high

    for name, model in figures.models.items():
        for scorer, estimate in model.scores.items():
            add(f"{_score_name(scorer)}_{name}", estimate)
        metrics[f"score_normalized_{name}"] = model.normalized_score
        add(f"kl_{name}", model.kl)
        add(f"length_{name}", model.length)
        metrics[f"eos_rate_{name}"] = model.eos_rate
        for figure in ("distinct_1", "distinct_2", "repetition"):
            value = getattr(model, figure)
            if value is not None:
                metrics[f"{figure}_{name}"] = value
    for (first, second), by_scorer in figures.contrasts.items():
        for scorer, contrast in by_scorer.items():
            if contrast.difference is not None:
                add(f"{_score_name(scorer)}_{first}_minus_{second}", contrast.difference)
            win_rate = win_rate_name(scorer, first, second)
            add(win_rate, contrast.win_rate)
            metrics[f"{win_rate}_ties"] = contrast.ties
            if isinstance(contrast.length_controlled, Estimate):
                add(f"{win_rate}_length_controlled", contrast.length_controlled)
    add("length_policy_minus_sft", figures.length_growth)
    for measure, shares in figures.measures.items():
        for name, estimate in shares.means.items():
            add(f"{measure}_{name}", estimate)
        for (first, second), estimate in shares.differences.items():
            add(f"{measure}_{first}_minus_{second}", estimate)
    for name, likeness in figures.references.items():
        for likeness_name, value in likeness.figures.items():
            if isinstance(value, Estimate):
                add(f"reference_{likeness_name}_{name}", value)
    for total, values in measured.totals.items():
        metrics |= {f"{total}_{name}": value for name, value in values.values.items()}
    metrics |= {f"bits_per_byte_{name}": value for name, value in measured.bits_per_byte.items()}
    metrics |= {f"sft_loss_{name}": value for name, value in measured.sft_loss.items()}
    if measured.judged:
        metrics["judge_dollars"] = measured.judge_dollars
    if card is not None:
        for row in filter(None, map(card.row, (ACCURACY, *BASELINES))):
            add(row.name, row.estimate)
    for benchmark in filter(lambda row: row.is_headline, benchmarks):
        beginning = re.sub(r"\W+", "_", f"benchmark_{benchmark.task}_{benchmark.metric}")
        found = {name: benchmark.value(name) for name in benchmark.values}
        # The error of a difference is no combination of both errors: the questions are the same.
        found["policy_minus_sft"] = benchmark.difference("policy", "sft")
        for name, figure in found.items():
            if figure is None:
                continue
            metrics[f"{beginning}_{name}"] = figure.value
            if figure.stderr is not None:
                metrics[f"{beginning}_{name}_stderr"] = figure.stderr
    return metrics


def reply_rows(measured: Measurements, prompt_texts: Sequence[str]) -> list[dict[str, object]]:
    """One row a prompt with every model's reply and its measurements, for replies.jsonl."""
    return [
        {"prompt": prompt}
        | {
            name: {
                "reply": replies.texts[index],
                "scores": {scorer: values[index] for scorer, values in replies.scores.items()},
                "kl": replies.kl[index],
                "length": replies.lengths[index],
                "ended": replies.ended[index],
            }
            for name, replies in measured.replies.items()
        }
        for index, prompt in enumerate(prompt_texts)
    ]


def _score_name(scorer: str) -> str:
    return "score" if scorer == REWARD_MODEL else scorer
