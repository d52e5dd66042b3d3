"""What a run leaves for people at its end, on figures as the evaluation stores them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from prefect import flow

from flows import progress, publishing
from flows.environment import CHECKOUT
from flows.profiles import cpu_demo, override
from flows.promotion import Opponent, make_champion
from flows.publishing import publish
from stages.core import tracking
from stages.core.artifacts import ArtifactKind, StageResult, make_artifact
from stages.core.config import Frozen, PipelineConfig
from stages.core.contracts import EvaluateOutputs, PPOOutputs, SFTOutputs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server", "data_root")]

BY_PROXY = {"win_rate_policy_vs_sft": 0.71, "kl_policy": 2.4, "num_prompts": 140.0}
BY_PROXY |= {"win_rate_policy_vs_sft_low": 0.63, "win_rate_policy_vs_sft_high": 0.78}
BY_PROXY |= {"kl_policy_low": 2.1, "kl_policy_high": 2.7}
WINS = BY_PROXY | {f"guard_model_{name}": v for name, v in BY_PROXY.items() if "win" in name}
LOSES = WINS | {"guard_model_win_rate_policy_vs_sft_low": 0.44}

Outputs = Mapping[str, Frozen]


@pytest.fixture
def outputs(data_root: Path) -> Outputs:
    """A policy of a few bytes, and its report."""

    def made(kind: ArtifactKind, name: str, text: str) -> Any:
        folder = data_root / name
        folder.mkdir()
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
        return make_artifact(kind, folder)

    policy = made("model", "policy", f"weights of {data_root}")
    adapter = made("adapter", "adapter", "weights")
    sft = made("model", "sft", "weights")
    report = made("report", "report", "# Report\n\nThe policy wins.\n\n![plot](plot.png)\n")
    return {
        "sft": SFTOutputs(adapter=sft, model=sft),
        "ppo": PPOOutputs(adapter=adapter, model=policy, history=policy),
        "evaluate": EvaluateOutputs(report=report),
    }


@pytest.fixture
def published(outputs: Outputs) -> Callable[..., tuple[list[str], Any, Any]]:
    """Publishes a run with these figures in an empty registry; returns the reasons against the
    policy, its version, and the run."""
    tracking.set_up()
    client = mlflow.MlflowClient()
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)

    @flow(name="published", persist_result=False)
    def publishing(
        config: PipelineConfig, run_id: str, metrics: Mapping[str, float], opponent: str
    ) -> list[str]:
        result = StageResult(
            stage="evaluate", key="key", outputs={}, metrics=dict(metrics), files={}
        )
        return publish(config, run_id, outputs, {"evaluate": result}, Opponent(config, opponent))

    def published(
        metrics: Mapping[str, float], opponent: str = tracking.NOBODY, **changes: str
    ) -> tuple[list[str], Any, Any]:
        changed = {name.replace("__", "."): value for name, value in changes.items()}
        config = override(cpu_demo(), changed)
        run_id = tracking.start_pipeline_run(config, "published")
        with progress.reporting_to(progress.Reporter()):
            reasons = publishing(config, run_id, metrics, opponent)
        tracking.end_pipeline_run(run_id, "FINISHED", {})
        version = client.get_model_version_by_alias("rlhf-policy", "challenger")
        return reasons, version, client.get_run(run_id)

    return published


def test_a_policy_that_passes_is_registered_with_what_was_found(published, outputs):
    reasons, version, run = published(WINS)
    assert reasons == []
    assert version.tags["gate"] == run.data.tags["policy_gate"] == "passed"
    assert version.tags["guard_model_win_rate_policy_vs_sft"] == "0.71"
    assert "guard_model_win_rate_policy_vs_sft_low" not in version.tags  # the report has it
    assert "| wins 71" in version.tags["gate_table"]
    assert version.tags["policy_digest"] == outputs["ppo"].model.digest
    assert version.tags["compared_with"] == "none"
    assert run.data.tags["policy_version"] == str(version.version)
    files = {file.path for file in mlflow.MlflowClient().list_artifacts(version.run_id, "report")}
    assert "report/report.md" in files
    assert tracking.champion() is None  # the demo asks nobody and promotes nothing


@pytest.mark.parametrize(("has_adapter", "file"), [(True, "adapter.md"), (False, "policy.md")])
def test_a_policy_without_adapter_is_registered_whole(published, outputs, has_adapter, file):
    if not has_adapter:
        outputs["ppo"] = outputs["ppo"].model_copy(update={"adapter": None})
    _, version, _ = published(WINS)
    place = f"models:/rlhf-policy/{version.version}"
    found = {artifact.path for artifact in mlflow.artifacts.list_artifacts(place)}
    assert found - {"MLmodel"} == {file}


def test_the_question_ends_where_the_reports_details_begin():
    template = (CHECKOUT / "stages/evaluate/templates/report.md.j2").read_text(encoding="utf-8")
    verdict, heading, _ = template.partition(publishing.DETAILS_BEGIN)
    assert heading
    assert "## What is asked of a champion" in verdict


def test_auto_makes_what_passes_champion(published):
    _, version, _ = published(WINS, approval__promotion="auto")
    assert tracking.champion().version == str(version.version)


def test_auto_does_not_believe_what_ppo_maximised(published):
    reasons, version, _ = published(BY_PROXY, approval__promotion="auto")
    assert reasons == []
    assert version.tags["gate"] == "passed"
    assert tracking.champion() is None
    changes = {"approval__promotion": "auto", "evaluate__gate__scorer": "reward_model"}
    _, version, _ = published(BY_PROXY, **changes)
    assert tracking.champion().version == str(version.version)


def test_auto_does_not_undo_a_rollback(published, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "weights").write_bytes(b"of the first policy")
    run_id = tracking.start_pipeline_run(cpu_demo(), "first")
    first = tracking.register_policy(run_id, tmp_path / "first", {"policy_digest": "first"})
    make_champion(first, "")
    _, version, _ = published(WINS, opponent=first, approval__promotion="auto")
    second = str(version.version)
    assert tracking.rollback() == (second, first)
    published(WINS, opponent=first, approval__promotion="auto")  # the same policy again
    assert tracking.champion().version == first
    make_champion(second, "a person says so")
    assert tracking.champion().version == second
    assert not tracking.was_rolled_back(second)


@pytest.mark.parametrize("promotion", ["off", "auto"])
def test_what_the_gate_refuses_stays_challenger_with_the_reason(published, promotion):
    reasons, version, run = published(LOSES, approval__promotion=promotion)
    assert len(reasons) == 1
    assert "do not clearly beat those of the SFT model" in reasons[0]
    assert "44" in reasons[0]
    assert version.tags["gate"] == run.data.tags["policy_gate"] == f"refused: {reasons[0]}"
    assert tracking.champion() is None


def test_a_gate_that_only_warns_lets_it_become_champion(published):
    changes = {"evaluate__gate__action": "warn", "approval__promotion": "auto"}
    reasons, version, _ = published(LOSES, **changes)
    assert reasons == []
    assert version.tags["gate"].startswith("warned: ")
    assert tracking.champion().version == str(version.version)


def test_a_policy_that_was_compared_with_nobody_does_not_replace_a_champion(
    published, outputs, tmp_path
):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights").write_bytes(b"of another policy")
    run_id = tracking.start_pipeline_run(cpu_demo(), "other")
    other = tracking.register_policy(run_id, tmp_path / "other", {"policy_digest": "other"})
    make_champion(other, "")
    with pytest.raises(Exception, match=f"version {other} is champion now"):
        published(WINS, approval__promotion="auto")
    assert tracking.champion().version == other
