"""Accuracy by who made the held-out pairs: people in a review queue, a language model, or files.

What a language model prefers is no measure of what people prefer; where feedback is in the data,
the card keeps the two apart.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stages.core.statistics import Estimate, paired_difference
from stages.reward_model_card.figures import clustered_share, outcomes, percent
from stages.reward_model_card.pairs import Judged
from stages.reward_model_card.tables import Table, interval

FEEDBACK = {
    "feedback:human": ("feedback_human", "people"),
    "feedback:ai": ("feedback_ai", "a language model as judge"),
}
"""Of the pairs' column source: what metrics and the table call it."""
FILES = ("files", "files and other sources")


class Origin(NamedTuple):
    """The pairs of one origin."""

    name: str
    """As metrics call it."""
    label: str
    num_pairs: int
    accuracy: Estimate
    previous: Estimate | None
    """Accuracy of the champion's reward model on the same pairs."""
    lead: Estimate | None
    """The accuracy less the previous one."""


def by_origin(judged: Judged, *, num_samples: int, seed: int) -> list[Origin]:
    """Each origin's figures; none where no pair comes from feedback.

    Args:
        num_samples: resamples behind each bootstrap interval.
    """
    if not FEEDBACK.keys() & set(judged.sources):
        return []
    origins = [FEEDBACK.get(source, FILES) for source in judged.sources]
    names = np.array([name for name, _ in origins])
    model = outcomes(judged.scores.margin)
    previous = None if judged.previous is None else outcomes(judged.previous.margin)
    found = []
    for name, label in (*FEEDBACK.values(), FILES):
        inside = names == name
        if not inside.any():
            continue
        clusters = judged.clusters[inside]
        draw = {"num_samples": num_samples, "seed": seed, "clusters": clusters}
        found.append(
            Origin(
                name=name,
                label=label,
                num_pairs=int(inside.sum()),
                accuracy=clustered_share(model[inside], draw),
                previous=None if previous is None else clustered_share(previous[inside], draw),
                lead=None
                if previous is None
                else paired_difference(model[inside], previous[inside], **draw),
            )
        )
    return found


def origin_metrics(origins: Sequence[Origin]) -> dict[str, float]:
    """Every figure and the ends of its interval, such as ``accuracy/feedback_human_low``."""
    metrics = {}
    for origin in origins:
        metrics[f"num_pairs/{origin.name}"] = float(origin.num_pairs)
        for figure, value in (
            ("accuracy", origin.accuracy),
            ("previous_accuracy", origin.previous),
            ("accuracy_minus_previous", origin.lead),
        ):
            if value is not None:
                name = f"{figure}/{origin.name}"
                metrics |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return metrics


def origin_tables(origins: Sequence[Origin]) -> Iterator[Table]:
    """The table, where there is something to show."""
    if not origins:
        return
    columns = ["pairs judged by", "pairs", "accuracy", "95 % interval"]
    has_previous = origins[0].previous is not None
    if has_previous:
        columns += ["champion's", "95 % interval", "difference", "95 % interval"]
    yield Table(
        "Accuracy on people's and on AI's judgments",
        "The held-out pairs by where their preference comes from. Judged pairs are those of the "
        "random share: chosen by chance, on prompts that are never trained on.",
        columns,
        [_row(origin) for origin in origins],
    )


# ------------------------------------------------------------------------------------ helpers


def _row(origin: Origin) -> list[str]:
    row = [origin.label, str(origin.num_pairs), percent(origin.accuracy.value),
           interval(origin.accuracy)]  # fmt: skip
    if origin.previous is None or origin.lead is None:
        return row
    lead = origin.lead
    return [
        *row,
        percent(origin.previous.value),
        interval(origin.previous),
        f"{_points(lead.value)} points",
        f"{_points(lead.low)} to {_points(lead.high)}",
    ]


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}".replace("-", "−")
