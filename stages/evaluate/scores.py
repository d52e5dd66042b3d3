"""Scores of the replies: by the reward model, by the guard model, by the user's scorers."""

from collections.abc import Mapping
from typing import NamedTuple

from stages.core.chat import Prompt
from stages.core.config import Compute
from stages.core.contracts import EvaluateInputs
from stages.core.models import pick_device
from stages.core.scoring import RewardModel, Scorer, load_reward_model
from stages.evaluate.answers import Progress
from stages.evaluate.attempts import attempt
from stages.evaluate.measurements import GUARD_MODEL, REWARD_MODEL, Missing

SCORES_AT_ONCE = 64
"""Scored replies between two progress events."""

Scores = dict[str, list[float]]
"""One score a reply, by model."""


class Scored(NamedTuple):
    """What all scorers made of the replies to the held-out prompts."""

    scores: dict[str, Scores]
    """By model, then by scorer."""
    names: tuple[str, ...]
    """The scorers beside the reward model."""
    mean: float
    std: float
    """Of the reward model's scores of the SFT model's samples, from its own training."""


def score_replies(
    inputs: EvaluateInputs,
    compute: Compute,
    scorers: Mapping[str, Scorer],
    prompts: list[Prompt],
    texts: Mapping[str, list[str]],
    progress: Progress,
    missing: list[Missing],
) -> Scored:
    """Score every model's replies; a guard model that cannot is named in ``missing``.

    Raises:
        UserError: the reward model does not fit the SFT model, or a scorer of the user's fails.
    """
    device, sft_folder = pick_device(compute), inputs.sft.locate()
    reward_model = load_reward_model(inputs.reward_model.locate(), sft_folder, device)
    progress.doing = "reward model scores replies"
    by_scorer = {
        REWARD_MODEL: {
            name: _score(reward_model, prompts, replies, progress)
            for name, replies in texts.items()
        }
    }
    guard = inputs.guard_model
    if guard is None:
        reason = "the run has no guard model (clean.guard_share is 0)"
        missing.append(Missing("scores of a guard model", reason))
    else:

        def guard_scores() -> Scores:
            guard_model = load_reward_model(guard.locate(), sft_folder, device)
            return {name: guard_model.score(prompts, replies) for name, replies in texts.items()}

        progress.tell("guard model scores replies")
        found = attempt("scores of the guard model", guard_scores, missing)
        if found is not None:
            by_scorer[GUARD_MODEL] = found
    for scorer, score in scorers.items():
        by_scorer[scorer] = {name: score(prompts, replies) for name, replies in texts.items()}
    return Scored(
        {name: {scorer: scores[name] for scorer, scores in by_scorer.items()} for name in texts},
        tuple(scorer for scorer in by_scorer if scorer != REWARD_MODEL),
        reward_model.score_mean,
        reward_model.score_std,
    )


def _score(
    reward_model: RewardModel, prompts: list[Prompt], texts: list[str], progress: Progress
) -> list[float]:
    scores: list[float] = []
    for start in range(0, len(prompts), SCORES_AT_ONCE):
        part = slice(start, start + SCORES_AT_ONCE)
        scores += reward_model.score(prompts[part], texts[part])
        progress.advance(len(scores) - start)
    return scores
