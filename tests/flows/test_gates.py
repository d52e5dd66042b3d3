"""The gate before PPO, on figures as the stages store them: what it stops, and what it says."""

from typing import Any

import mlflow
import pytest
from prefect import flow

from flows import gates, progress
from flows.profiles import cpu_demo, override
from flows.refusals import refusals_as_states
from stages.core import tracking
from stages.core.artifacts import StageResult
from stages.core.config import PipelineConfig
from stages.core.errors import UserError

pytestmark = pytest.mark.usefixtures("prefect_server", "data_root")

GOOD = {
    "num_pairs": 400.0,
    "reward_model_accuracy": 0.72,
    "reward_model_accuracy_low": 0.674,
    "reward_model_accuracy_high": 0.762,
    "length_baseline_accuracy": 0.53,
}
SHUFFLED = GOOD | {
    "reward_model_accuracy": 0.505,
    "reward_model_accuracy_low": 0.456,
    "reward_model_accuracy_high": 0.554,
}


class Warnings(progress.Reporter):
    """Keeps what a run warns of."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def warn(self, stage: str, text: str) -> None:
        self.texts.append(f"{stage}: {text}")


@flow(name="gated", persist_result=False)
@refusals_as_states
def gated(config: PipelineConfig, run_id: str, metrics: dict[str, float] | None) -> Any:
    """What happens before PPO, with the card's figures where there are any."""
    results = {}
    if metrics is not None:
        results["reward_model_card"] = StageResult(
            stage="reward_model_card", key="key", outputs={}, metrics=metrics, files={}
        )
    assert gates.before_ppo(run_id, "sft", config, {}) is config  # other stages pass
    return gates.before_ppo(run_id, "ppo", config, results).ppo.kl_coef


def run(metrics: dict[str, float] | None, **changes: object) -> tuple[Any, str | None, list[str]]:
    """The flow's state, the tag of its MLflow run, and its warnings."""
    config = override(cpu_demo(), {key.replace("__", "."): v for key, v in changes.items()})
    tracking.set_up()
    run_id = tracking.start_pipeline_run(config, "gated")
    reporter = Warnings()
    with progress.reporting_to(reporter):
        state = gated(config, run_id, metrics, return_state=True)
    tag = mlflow.MlflowClient().get_run(run_id).data.tags.get("reward_model_gate")
    tracking.end_pipeline_run(run_id, "FINISHED", {})
    return state, tag, reporter.texts


def test_a_good_reward_model_goes_on_to_ppo() -> None:
    state, tag, warnings = run(GOOD)
    assert state.name == "Completed"
    assert tag == "passed"
    assert warnings == []


def test_what_shuffled_labels_taught_is_stopped_in_one_line() -> None:
    state, tag, _ = run(SHUFFLED)
    assert state.name == "Failed"
    assert tag is not None
    assert tag.startswith("refused: it ranks 50.5 % of 400 held-out pairs as people did, less")
    assert "which is chance" in tag
    assert "\n" not in state.message
    assert "so PPO does not begin" in state.message
    assert "reward_model_card.gate.action=warn" in state.message
    with pytest.raises(UserError, match="does not pass its gate"):
        state.result()


@pytest.mark.parametrize(
    "changes",
    [
        {"reward_model_card__gate__action": "warn"},
        # PPO does not optimise it.
        {
            "ppo__scorers": {"oracle": "data/samples/oracle.py:score"},
            "ppo__scorer_weights": {"reward_model": 0.0, "oracle": 1.0},
        },
    ],
)
def test_a_warning_lets_the_run_go_on(changes: dict[str, Any]) -> None:
    if "ppo__scorers" in changes:
        config = {
            "ppo__scorers__oracle": changes["ppo__scorers"]["oracle"],
            **{f"ppo__scorer_weights__{k}": v for k, v in changes["ppo__scorer_weights"].items()},
        }
        changes = config
    state, tag, warnings = run(SHUFFLED, **changes)
    assert state.name == "Completed"
    assert tag is not None
    assert tag.startswith("warned: it ranks 50.5 %")
    (warning,) = warnings
    assert warning.startswith(f"{gates.CARD}: the reward model does not pass its gate: it ranks")


def test_an_earlier_run_without_a_card_is_no_obstacle_but_is_named() -> None:
    state, tag, warnings = run(None)
    assert state.name == "Completed"
    assert tag is None
    assert "has no reward_model_card" in warnings[0]


def test_the_gate_is_asked_before_the_person() -> None:
    state, _, _ = run(SHUFFLED, approval__before_ppo="ask")
    assert state.name == "Failed"
    assert "does not pass its gate" in state.message
