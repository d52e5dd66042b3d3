"""Where a chain stops because of what its own stages measured."""

from prefect.logging import get_run_logger

from flows import chain, progress
from stages.core import tracking
from stages.core.config import PipelineConfig
from stages.core.errors import UserError
from stages.core.reward_model_gate import reward_model_refusals

CARD, TAG = "reward_model_card", "reward_model_gate"


def check_reward_model(config: PipelineConfig, run_id: str, results: chain.Results) -> None:
    """Let PPO begin only with a reward model that passes ``reward_model_card.gate``.

    What it finds becomes the MLflow run's tag ``reward_model_gate``. It only warns where that is
    configured, where PPO gives the reward model's score no weight, and where an earlier run brought
    no card.

    Raises:
        UserError: the reward model does not pass.
    """
    if CARD not in results:
        _warn("the earlier run has no reward_model_card: nobody has tested its reward model")
        return
    reasons = reward_model_refusals(config.reward_model_card.gate, results[CARD].metrics)
    if not reasons:
        tracking.tag_run(run_id, {TAG: "passed"})
        return
    text = "; ".join(reasons)
    is_optimised = bool(config.ppo.scorer_weights.get("reward_model"))
    if config.reward_model_card.gate.action == "warn" or not is_optimised:
        tracking.tag_run(run_id, {TAG: f"warned: {text}"})
        _warn(f"the reward model does not pass its gate: {text}")
        return
    tracking.tag_run(run_id, {TAG: f"refused: {text}"})
    raise UserError(
        f"the reward model does not pass its gate, so PPO does not begin: {text}. Give more or "
        "better pairs (the stage's card.md shows where it fails), or set "
        f"{CARD}.gate.action=warn to go on all the same"
    )


def _warn(text: str) -> None:
    get_run_logger().warning(text)
    progress.current().warn(CARD, text)
