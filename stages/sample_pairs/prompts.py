"""The prompts that the models answer."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from transformers import AutoConfig, PreTrainedTokenizerBase

from stages.core.chat import Prompt, encode_prompt
from stages.core.config import SamplePairsConfig
from stages.core.contracts import SamplePairsInputs
from stages.core.errors import UserError
from stages.core.feedback.pairs import is_reserved
from stages.core.models import load_tokenizer
from stages.core.schemas import prompt_key
from stages.sample_pairs.reading import read_rows


class Room(NamedTuple):
    """What one model can take."""

    tokenizer: PreTrainedTokenizerBase
    longest: int
    """Prompt that leaves room for a reply within the model's positions, tokens."""


@dataclass(frozen=True)
class Prompts:
    """The prompts to answer, in the order in which the seed drew them."""

    prompts: list[Prompt]
    num_there: int
    """Different prompts in the files."""
    num_over_long: int
    """Of those that were looked at, left out."""

    def num_reserved(self, share: float) -> int:
        """Of the prompts, those set apart for evaluation."""
        return sum(is_reserved(prompt, share) for prompt in self.prompts)


def read_prompts(config: SamplePairsConfig, inputs: SamplePairsInputs) -> Prompts:
    """At most ``max_prompts`` different prompts, none empty nor too long for any of the models.

    Raises:
        UserError: there is none.
    """
    different = {
        prompt_key("prompts", row): row["prompt"] for row in read_rows("prompts", inputs.prompts)
    }
    drawn = list(different.values())
    random.Random(config.seed).shuffle(drawn)
    rooms = [_room(model.locate(), config) for model in inputs.models.values()]
    kept: list[Prompt] = []
    num_over_long = 0
    for prompt in drawn:
        if len(kept) == config.max_prompts:
            break
        if all(0 < len(encode_prompt(room.tokenizer, prompt)) <= room.longest for room in rooms):
            kept.append(prompt)
        else:
            num_over_long += 1
    if not kept:
        raise UserError(
            f"all {len(drawn)} prompts exceed {min(room.longest for room in rooms)} tokens; raise "
            "sample_pairs.max_prompt_length, as far as the models' positions allow, or give "
            "shorter prompts"
        )
    if num_over_long:
        print(f"{num_over_long} prompts are empty or over-long, left out", flush=True)
    return Prompts(kept, len(drawn), num_over_long)


# ------------------------------------------------------------------------------------ helpers


def _room(folder: Path, config: SamplePairsConfig) -> Room:
    """
    Raises:
        UserError: the folder holds no model, or one whose positions leave no room for a prompt.
    """
    tokenizer = load_tokenizer(folder)
    try:
        model = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: holds no usable model; make it again") from error
    positions = getattr(model, "max_position_embeddings", None)
    if positions is None:
        return Room(tokenizer, config.max_prompt_length)
    if positions <= config.max_completion_length:
        raise UserError(
            f"sample_pairs.max_completion_length = {config.max_completion_length} leaves no room "
            f"for a prompt within the model's {positions} positions; lower it"
        )
    longest = min(config.max_prompt_length, positions - config.max_completion_length)
    return Room(tokenizer, longest)
