"""What the reward model and the guard model make of the replies."""

import gc
import math
from pathlib import Path

from stages.core import tracking
from stages.core.artifacts import Artifact
from stages.core.chat import Prompt
from stages.core.config import Compute
from stages.core.contracts import SamplePairsInputs
from stages.core.errors import UserError
from stages.core.models import pick_device
from stages.core.scoring import load_reward_model
from stages.sample_pairs.candidates import Reply
from stages.sample_pairs.replies import Replies

SCORES_AT_ONCE = 256
"""Replies scored between two reports of progress."""


def scored_replies(
    inputs: SamplePairsInputs,
    compute: Compute,
    prompts: list[Prompt],
    sampled: dict[str, Replies],
) -> list[list[Reply]]:
    """The replies to each prompt with the scores that the reward models give them, in standard
    deviations; without a reward model, without scores.

    Raises:
        UserError: a reward model does not fit its base, or its scores are no numbers.
    """
    rows = [
        (number, name, text)
        for name, of_model in sampled.items()
        for number, replies in enumerate(of_model.texts)
        for text in replies
    ]
    asked = [prompts[number] for number, _, _ in rows]
    replies = [text for _, _, text in rows]
    scores: dict[str, list[float]] = {}
    for name, folder in _reward_models(inputs).items():
        assert inputs.base is not None
        scores[name] = _scores(name, folder, inputs.base.locate(), compute, asked, replies)
        gc.collect()  # before the next one is loaded
    found: list[list[Reply]] = [[] for _ in prompts]
    for place, (number, model, text) in enumerate(rows):
        by_name = {name: values[place] for name, values in scores.items()}
        reply = Reply(model, text, by_name.get("reward model"), by_name.get("guard model"))
        found[number].append(reply)
    return found


# ------------------------------------------------------------------------------------ helpers


def _reward_models(inputs: SamplePairsInputs) -> dict[str, Artifact]:
    """By name. A guard model alone is no reward model: it exists to watch one."""
    if inputs.reward_model is None:
        return {}
    found = {"reward model": inputs.reward_model}
    return found | ({"guard model": inputs.guard_model} if inputs.guard_model else {})


def _scores(
    name: str,
    folder: Artifact,
    base: Path,
    compute: Compute,
    prompts: list[Prompt],
    replies: list[str],
) -> list[float]:
    model = load_reward_model(folder.locate(), base, pick_device(compute))
    scores: list[float] = []
    for start in range(0, len(replies), SCORES_AT_ONCE):
        part = slice(start, start + SCORES_AT_ONCE)
        scores += model.normalized(model.score(prompts[part], replies[part]))
        tracking.report_progress(len(scores), len(replies), doing=f"{name} scores replies")
    if not all(map(math.isfinite, scores)):
        raise UserError(
            f"the {name} gives scores that are no numbers; train it again with a lower "
            "learning_rate"
        )
    return scores
