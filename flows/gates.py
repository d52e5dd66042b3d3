"""Where a chain stops because of what its own stages measured."""

import json
from collections.abc import Mapping

from prefect.logging import get_run_logger

from flows import approval, chain, progress
from stages.core import tracking
from stages.core.artifacts import StageResult, data_root
from stages.core.config import PipelineConfig, RewardModelGate
from stages.core.errors import UserError
from stages.core.launch import SPEC_FILE
from stages.core.reward_model_gate import reward_model_refusals

CARD, TAG = "reward_model_card", "reward_model_gate"


def check_reward_model(
    config: PipelineConfig, run_id: str, results: chain.Results, *, is_of_this_run: bool = True
) -> None:
    """Let PPO begin only with a reward model that passes ``reward_model_card.gate``.

    What it finds becomes the MLflow run's tag ``reward_model_gate``. It only warns where that is
    configured, where PPO gives the reward model's score no weight, and where an earlier run brought
    no card.

    Args:
        is_of_this_run: whether ``config`` says what the gate asks; else the configuration of the
            run that made the card does.

    Raises:
        UserError: the reward model does not pass.
    """
    if CARD not in results:
        _warn("the earlier run has no reward_model_card: nobody has tested its reward model")
        return
    gate = config.reward_model_card.gate if is_of_this_run else _gate_of(results[CARD])
    reasons = reward_model_refusals(gate, results[CARD].metrics)
    if not reasons:
        tracking.tag_run(run_id, {TAG: "passed"})
        return
    text = "; ".join(reasons)
    is_optimised = config.ppo.algorithm != "dpo" and config.ppo.scorer_weights.get("reward_model")
    if gate.action == "warn" or not is_optimised:
        tracking.tag_run(run_id, {TAG: f"warned: {text}"})
        _warn(f"the reward model does not pass its gate: {text}")
        return
    tracking.tag_run(run_id, {TAG: f"refused: {text}"})
    raise UserError(
        f"the reward model does not pass its gate, so PPO does not begin: {text}. Give more or "
        "better pairs (the stage's card.md shows where it fails), or set "
        f"{CARD}.gate.action=warn to go on all the same"
    )


def before_ppo(
    run_id: str, stage: str, config: PipelineConfig, results: chain.Results
) -> PipelineConfig:
    """Before PPO: the reward model's gate, and a person's yes where one is asked. Returns the
    configuration with the answer.

    Raises:
        UserError: the reward model does not pass.
        StoppedByPersonError: the answer is to stop.
    """
    if stage != "ppo":
        return config
    check_reward_model(config, run_id, results)
    source = next((s for s in (CARD, "reward_model") if s in results), "")
    if config.approval.before_ppo == "off" or not source:  # without one, ppo itself says so
        return config
    return approval.before_ppo(config, _figures_table(results[source].metrics))


# ------------------------------------------------------------------------------------ helpers


def _gate_of(card: StageResult) -> RewardModelGate:
    spec = json.loads((data_root() / "runs" / CARD / card.key / SPEC_FILE).read_text("utf-8"))
    return RewardModelGate.model_validate(spec["config"]["gate"])


def _warn(text: str) -> None:
    get_run_logger().warning(text)
    progress.current().warn(CARD, text)


def _figures_table(figures: Mapping[str, float]) -> str:
    """Each figure in a row, with its interval where it has one."""
    lines = [
        f"| {name} | {value:.4g} | {_interval(figures, name)} |"
        for name, value in sorted(figures.items())
        if not name.endswith(("_low", "_high"))
    ]
    head = "The reward model's figures:\n\n| figure | value | 95 % interval |\n|---|---|---|\n"
    return head + "\n".join(lines) + "\n"


def _interval(figures: Mapping[str, float], name: str) -> str:
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    return "" if low is None or high is None else f"{low:.3g} to {high:.3g}"
