"""Whether the reward model got better: its accuracy on people's judgments of the random share, that
nothing is trained on, beside that of the champion's reward model."""

from collections.abc import Mapping

from prefect.artifacts import create_markdown_artifact

from flows import progress
from stages.core import tracking
from stages.core.artifacts import StageResult

CARD = "reward_model_card"
ORIGINS = {
    "feedback_human": "random share, judged by people",
    "feedback_ai": "random share, judged by a model",
    "files": "held-out pairs of files",
}
"""Of the held-out pairs: as the card's metrics call it, and as people do."""
FIGURES = {
    "previous_accuracy/feedback_human": "random_share_accuracy_before",
    "accuracy/feedback_human": "random_share_accuracy_after",
    "num_pairs/feedback_human": "random_share_pairs",
}
"""The card's metrics that are the whole run's, too, and how they are called there."""


def show_change(results: Mapping[str, StageResult], run_id: str) -> None:
    """Before and after in the MLflow run's figures, on the flow run's page and on the terminal;
    nothing where the card has no pairs from judgments."""
    metrics = results[CARD].metrics if CARD in results else {}
    figures = {name: metrics[source] for source, name in FIGURES.items() if source in metrics}
    rows = {origin: _row(metrics, origin) for origin in ORIGINS if f"accuracy/{origin}" in metrics}
    if not rows:
        return
    tracking.measure_run(run_id, figures)
    head = "| held-out pairs | pairs | before | after | difference |\n|---|---|---|---|---|\n"
    text = head + "".join(f"| {' | '.join(row)} |\n" for row in rows.values())
    told = "The reward model's accuracy: the champion's (before) and this run's (after)"
    create_markdown_artifact(f"{told}\n\n{text}", key="reward-model", description="Reward model")
    label, pairs, before, after, _ = next(iter(rows.values()))
    progress.current().places["reward model"] = f"{label} ({pairs} pairs): {before} → {after}"


# ------------------------------------------------------------------------------------ helpers


def _row(metrics: Mapping[str, float], origin: str) -> tuple[str, ...]:
    def shown(figure: str, sign: str = "") -> str:
        name = f"{figure}/{origin}"
        if name not in metrics:
            return "–"
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        interval = "" if low is None or high is None else f" ({low:{sign}.2f} to {high:{sign}.2f})"
        return f"{metrics[name]:{sign}.2f}{interval}"

    return (
        ORIGINS[origin],
        f"{metrics.get(f'num_pairs/{origin}', 0):.0f}",
        shown("previous_accuracy"),
        shown("accuracy"),
        shown("accuracy_minus_previous", "+"),
    )
