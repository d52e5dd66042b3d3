"""What a run's tags say of the judgments that it collected, and what the judged pairs say of it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pytest

from flows import lineage
from flows.profiles import override
from stages.core import tracking
from stages.core.artifacts import StageResult
from stages.core.config import PipelineConfig
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id

pytestmark = pytest.mark.usefixtures("data_root")

PAIR = CandidatePair(
    pair_id=pair_id("Which?", "One.", "Another."),
    prompt="Which?",
    reply_a="One.",
    reply_b="Another.",
)
COLLECT = {"collect": StageResult(stage="collect", key="key", outputs={}, metrics={}, files={})}


def _report(data_root: Path, digest: str, experiment: str, traces: list[str], hour: int) -> None:
    """A snapshot's report as collect keeps it, on a judgment of each trace."""
    at = datetime(2026, 11, 2, hour, tzinfo=UTC).isoformat()
    report = {
        "experiment": experiment, "num_judgments": len(traces), "by_kind": {"human": len(traces)},
        "by_queue": {}, "by_annotator": {"annotator-1": len(traces)}, "annotators": [],
        "pairs": {}, "num_conflicts": 0, "num_shared": 0, "alpha": {}, "num_reserved_prompts": 0,
        "first_at": at, "last_at": at,
        "judgments": [
            {"judgment_id": f"a-{trace}", "trace_id": trace, "use": "train"} for trace in traces
        ],
    }  # fmt: skip
    folder = data_root / "runs" / "collect" / "key" / "feedback"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{digest}.json").write_text(json.dumps(report), encoding="utf-8")


def test_an_experiment_that_several_sources_name_is_counted_once() -> None:
    given = [{"queues": ["one"]}, {"queues": ["two"]}, {"experiment": "b", "annotators": "ai"},
             {"experiment": "b", "annotators": "all"}]  # fmt: skip
    config = override(PipelineConfig(), {"collect.preferences.feedback": given})
    assert lineage.kinds_wanted(config) == {"feedback": ("human",), "b": ("ai", "human")}


def test_a_run_without_judgments_has_no_tags() -> None:
    assert lineage.feedback_tags({}) == lineage.feedback_tags(COLLECT) == {}
    assert lineage.before_fetching(PipelineConfig()) == {}


def test_tags_name_all_snapshots_and_count_each_judgment_once(data_root: Path) -> None:
    _report(data_root, "aaaa", "lineage", ["tr-1", "tr-2"], hour=8)
    _report(data_root, "bbbb", "lineage", ["tr-2", "tr-3"], hour=9)
    assert lineage.feedback_tags(COLLECT) == {
        "feedback_snapshot": "aaaa,bbbb",
        "feedback_judgments": "3",
        "feedback_annotators": "0",
        "feedback_until": "2026-11-02T09:00:00+00:00",
    }


@pytest.mark.slow
def test_a_judged_pair_names_what_learned_from_it_and_one_that_is_gone_is_passed_over(
    data_root: Path, tmp_path: Path
) -> None:
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="pairs"), "pairs")
    row = Judgment(
        judgment_id="", trace_id="", queue="", pair=PAIR, verdict="a", annotator="anna",
        created_at=datetime(2026, 11, 2, 8, tzinfo=UTC),
    )  # fmt: skip
    tracking.record_judgments("judged lineage", [row], run_id)
    (judgment,) = tracking.judgments("judged lineage")
    gone = f"tr-{'0' * 32}"
    _report(data_root, "aaaa", "judged lineage", [gone, judgment.trace_id], hour=8)
    (tmp_path / "policy").mkdir()
    version = tracking.register_policy(run_id, tmp_path / "policy", {"policy_digest": run_id})
    for _ in range(2):  # the second time a run begins again
        lineage.tag_judged(COLLECT, run_id, version)
    client = mlflow.MlflowClient()
    tags = client.get_trace(judgment.trace_id).info.tags
    assert (tags["rlhf.used_in_run"], tags["rlhf.used_in_version"]) == (run_id, version)
    assert tags["rlhf.used_in_page"].endswith(tracking.run_page(run_id))
    pairs = tracking.experiment_page("judged lineage", "traces")[1:]
    text = (
        f"Learned from 2 judgments: [judged pairs of judged lineage]({pairs}) · "
        f"[rlhf-policy version {version}](#/models/rlhf-policy/versions/{version}) · "
        f"[run]({tracking.run_page(run_id)[1:]})"
    )
    assert client.get_run(run_id).data.tags["mlflow.note.content"] == text
    assert client.get_model_version("rlhf-policy", version).description == text
    source = {"experiment": "judged lineage"}
    config = override(PipelineConfig(), {"collect.preferences.feedback": [source]})
    seen = json.loads(lineage.before_fetching(config)["feedback_seen"])
    assert seen == {"judged lineage": {"human": 1, "ai": 0}}
