"""The prompts that a policy answers, and their order."""

import random
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from stages.core.chat import Prompt, encode_prompt
from stages.core.config import PPOConfig
from stages.core.errors import UserError
from stages.core.schemas import read_jsonl


class Prompts(NamedTuple):
    """The prompts that a policy can answer, as texts or messages and as token ids."""

    prompts: list[Prompt]
    ids: list[list[int]]


def read_prompts(
    path: Path, tokenizer: PreTrainedTokenizerBase, config: PPOConfig, longest: int
) -> Prompts:
    """The prompts of a file that have at least one token, and at most ``max_prompt_length`` and
    ``longest``, which is what the model's positions leave beside a reply.

    Raises:
        UserError: too many do not, or none is left.
    """
    if longest < 1:
        raise UserError(
            f"ppo.max_completion_length = {config.max_completion_length} leaves no room for a "
            "prompt within the model's positions; lower it"
        )
    limit = min(config.max_prompt_length, longest)
    fitting = Prompts([], [])
    num_all = num_long = 0
    for row in read_jsonl(path):
        ids = encode_prompt(tokenizer, row["prompt"])
        num_all += 1
        num_long += len(ids) > limit
        if 0 < len(ids) <= limit:
            fitting.prompts.append(row["prompt"])
            fitting.ids.append(ids)
    setting = "ppo.max_prompt_length" if limit == config.max_prompt_length else "the model's room"
    if num_long > config.max_over_length_share * num_all:
        raise UserError(
            f"{path.name}: {num_long} of {num_all} prompts exceed {setting} = {limit} tokens; "
            "raise it, shorten the prompts, or allow more with ppo.max_over_length_share"
        )
    if not fitting.ids:
        raise UserError(f"{path.name}: none of {num_all} prompts can be used")
    if dropped := num_all - len(fitting.ids):
        print(f"{dropped} of {num_all} prompts are empty or over-long, dropped", flush=True)
    return fitting


def prompt_of_episode(episode: int, num_prompts: int, seed: int) -> int:
    """The number of an episode's prompt: each pass over the prompts goes in a new random order,
    which depends on the seed and the number of the pass alone."""
    number, position = divmod(episode, num_prompts)
    return _order(num_prompts, f"{seed}/{number}")[position]


@lru_cache(maxsize=2)
def _order(num_prompts: int, seed: str) -> list[int]:
    order = list(range(num_prompts))
    random.Random(seed).shuffle(order)
    return order
