"""What must hold before a chain goes on: pure functions of figures that earlier stages measured."""

from collections.abc import Mapping

from stages.core.config import RewardModelGate


def reward_model_refusals(gate: RewardModelGate, metrics: Mapping[str, float]) -> list[str]:
    """Why PPO should not optimise a reward model, in plain words; empty where it passes.

    Args:
        metrics: of the stage reward_model_card.
    """
    accuracy = metrics["reward_model_accuracy"]
    low, high = metrics["reward_model_accuracy_low"], metrics["reward_model_accuracy_high"]
    length = metrics["length_baseline_accuracy"]
    pairs = f"{metrics['num_pairs']:.0f} held-out pairs"
    reasons = []
    # Not the other way round: a figure that is no number must not pass.
    if not accuracy >= gate.min_accuracy:
        reasons.append(
            f"it ranks {_percent(accuracy)} of {pairs} as people did, less than min_accuracy = "
            f"{_percent(gate.min_accuracy)}"
        )
    if not low > 0.5:
        reasons.append(
            f"its accuracy's 95 % interval on {pairs}, {_percent(low)} to {_percent(high)}, does "
            "not lie above 50 %, which is chance"
        )
    if not accuracy - length >= gate.min_length_advantage:
        reasons.append(
            f"it ranks {_percent(accuracy)} as people did and always preferring the longer reply "
            f"{_percent(length)}: an advantage of {_points(accuracy - length)}, less than "
            f"min_length_advantage = {_points(gate.min_length_advantage)}"
        )
    return reasons


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"
