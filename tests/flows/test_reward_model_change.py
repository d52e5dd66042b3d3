"""What a run says of its reward model beside the champion's."""

from typing import Any

import mlflow
import pytest

from flows import progress, reward_model_change
from stages.core import tracking
from stages.core.artifacts import StageResult
from stages.core.config import PipelineConfig

pytestmark = pytest.mark.usefixtures("data_root")

METRICS = {
    "num_pairs/feedback_human": 40.0,
    "accuracy/feedback_human": 0.74,
    "accuracy/feedback_human_low": 0.6,
    "accuracy/feedback_human_high": 0.85,
    "previous_accuracy/feedback_human": 0.61,
    "accuracy_minus_previous/feedback_human": 0.13,
    "num_pairs/files": 300.0,
    "accuracy/files": 0.8,
}


def _card(metrics: dict[str, float]) -> dict[str, StageResult]:
    card = StageResult(stage="reward_model_card", key="k", outputs={}, metrics=metrics, files={})
    return {"reward_model_card": card}


def _show(results: dict[str, StageResult], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str, str]:
    """Figures of the run, the page's Markdown and the terminal's line."""
    shown: list[str] = []

    def keep(markdown: str, key: str, description: str) -> None:
        shown.append(markdown)

    monkeypatch.setattr(reward_model_change, "create_markdown_artifact", keep)
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="change"), "change")
    reporter = progress.Reporter()
    with progress.reporting_to(reporter):
        reward_model_change.show_change(results, run_id)
    tracking.end_pipeline_run(run_id, "FINISHED", {})
    figures = mlflow.MlflowClient().get_run(run_id).data.metrics
    return figures, "".join(shown), reporter.places.get("reward model", "")


def test_before_and_after_are_shown_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    figures, page, line = _show(_card(METRICS), monkeypatch)
    assert figures == {
        "random_share_accuracy_before": 0.61,
        "random_share_accuracy_after": 0.74,
        "random_share_pairs": 40.0,
    }
    row = "| random share, judged by people | 40 | 0.61 | 0.74 (0.60 to 0.85) | +0.13 |"
    assert row in page
    assert "| held-out pairs of files | 300 | – | 0.80 | – |" in page
    assert line == "random share, judged by people (40 pairs): 0.61 → 0.74 (0.60 to 0.85)"


@pytest.mark.parametrize("results", [{}, _card({"reward_model_accuracy": 0.7})])
def test_without_judgments_nothing_is_shown(
    results: dict[str, StageResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _show(results, monkeypatch) == ({}, "", "")
