"""What a run leaves for people at its end, on figures as the evaluation stores them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from prefect import flow

from flows import progress
from flows.profiles import cpu_demo, override
from flows.promotion import Opponent, make_champion
from flows.publishing import publish
from stages.core import tracking
from stages.core.artifacts import ArtifactKind, StageResult, make_artifact
from stages.core.config import Frozen, PipelineConfig
from stages.core.contracts import EvaluateOutputs, PPOOutputs, SFTOutputs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server", "data_root")]

WINS = {"win_rate_policy_vs_sft": 0.71, "kl_policy": 2.4, "num_prompts": 140.0}
WINS |= {"win_rate_policy_vs_sft_low": 0.63, "win_rate_policy_vs_sft_high": 0.78}
WINS |= {"kl_policy_low": 2.1, "kl_policy_high": 2.7}
LOSES = WINS | {"win_rate_policy_vs_sft_low": 0.44}

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
    sft = made("model", "sft", "weights")
    report = made("report", "report", "# Report\n\nThe policy wins.\n\n![plot](plot.png)\n")
    return {
        "sft": SFTOutputs(adapter=sft, model=sft),
        "ppo": PPOOutputs(adapter=policy, model=policy, history=policy),
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
    def publishing(config: PipelineConfig, run_id: str, metrics: Mapping[str, float]) -> list[str]:
        result = StageResult(
            stage="evaluate", key="key", outputs={}, metrics=dict(metrics), files={}
        )
        return publish(config, run_id, outputs, {"evaluate": result}, Opponent(config))

    def published(metrics: Mapping[str, float], **changes: str) -> tuple[list[str], Any, Any]:
        changed = {name.replace("__", "."): value for name, value in changes.items()}
        config = override(cpu_demo(), changed)
        run_id = tracking.start_pipeline_run(config, "published")
        with progress.reporting_to(progress.Reporter()):
            reasons = publishing(config, run_id, metrics)
        tracking.end_pipeline_run(run_id, "FINISHED", {})
        version = client.get_model_version_by_alias("rlhf-policy", "challenger")
        return reasons, version, client.get_run(run_id)

    return published


def test_a_policy_that_passes_is_registered_with_what_was_found(published, outputs):
    reasons, version, run = published(WINS)
    assert reasons == []
    assert version.tags["gate"] == run.data.tags["policy_gate"] == "passed"
    assert version.tags["win_rate_policy_vs_sft"] == "0.71"
    assert "win_rate_policy_vs_sft_low" not in version.tags  # the report has it
    assert "| wins 71" in version.tags["gate_table"]
    assert version.tags["policy_digest"] == outputs["ppo"].model.digest
    assert version.tags["compared_with"] == "none"
    assert run.data.tags["policy_version"] == str(version.version)
    files = {file.path for file in mlflow.MlflowClient().list_artifacts(version.run_id, "report")}
    assert "report/report.md" in files
    assert tracking.champion() is None  # the demo asks nobody and promotes nothing


def test_auto_makes_what_passes_champion(published):
    _, version, _ = published(WINS, approval__promotion="auto")
    assert tracking.champion().version == str(version.version)


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
