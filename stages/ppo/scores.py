"""The score that is optimised, from one or several scorers, and the scorers that only watch."""

from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from stages.core.chat import Prompt
from stages.core.config import PPOConfig
from stages.core.contracts import PPOInputs
from stages.core.scorer_places import check_scorer_name
from stages.core.scorers import checked, load_scorer
from stages.core.scoring import RewardModel, Scorer

REWARD_MODEL = "reward_model"


def load_scorers(
    config: PPOConfig,
    inputs: PPOInputs,
    reward_model: RewardModel,
    device: torch.device,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Scorer]:
    """All scorers by name: the chain's own ``reward_model`` and those of ``config.scorers``.

    Args:
        tokenizer: the policy's.

    Raises:
        UserError: a name that metrics cannot carry, or a scorer that cannot be loaded; or, when
            called, anything but one finite number a reply.
    """

    def own(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        scores = reward_model.score(prompts, completions)
        return reward_model.normalized(scores) if config.normalize_scores else scores

    scorers = {REWARD_MODEL: checked(REWARD_MODEL, own)}
    for name, place in config.scorers.items():
        check_scorer_name(f"ppo.scorers.{name}", name)
        path = inputs.scorers[name].locate()
        scorers[name] = load_scorer(
            place, path, device, tokenizer=tokenizer, normalize=config.normalize_scores
        )
    return scorers


def weighted_sum(
    scores: Mapping[str, Sequence[float]], weights: Mapping[str, float]
) -> list[float]:
    """The optimised score of each reply: the sum of its scores, by name, times their weights.

    Scores without a weight are only watched and have no part in it.

    Raises:
        KeyError: the scores of a scorer with a weight are not there.
    """
    used = {name: weight for name, weight in weights.items() if weight}
    rows = zip(*(scores[name] for name in used), strict=True)
    return [
        sum(weight * value for weight, value in zip(used.values(), row, strict=True))
        for row in rows
    ]
