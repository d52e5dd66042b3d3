"""A trainer on the tiny model, and a toy reward."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.core.chat import encode_prompt
from stages.core.config import Compute, LoRAConfig, PPOConfig
from stages.core.generation import generate
from stages.core.models import load_model, load_tokenizer
from stages.core.ranks import Ranks
from stages.core.scoring import Scorer
from stages.ppo.actor_critic import load_actor_critic
from stages.ppo.prompts import Prompts
from stages.ppo.rollout import Reply, Rollout, assemble_rollout
from stages.ppo.trainer import PPOTrainer

PROMPTS = ["Who are you?", "What is it?", "Tell me something long about the town.", "Where?"]
EOS = 9
"""In replies made by hand."""
SETTINGS = {
    "lora": LoRAConfig(rank=4, alpha=8),
    "total_episodes": 48,
    "batch_size": 8,
    "num_mini_batches": 2,
    "num_ppo_epochs": 2,
    "max_completion_length": 12,
    "learning_rate": 3e-3,
    "value_learning_rate": 3e-3,
    "value_init": "zero",
    "save_updates": 2,
    "seed": 3,
}


def share_of_vowels(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """A toy reward that can be learned: the share of vowels in the reply."""
    return [sum(letter in "aeiou" for letter in text) / max(len(text), 1) for text in completions]


@pytest.fixture(scope="session")
def common_token(tiny_model_folder: Path) -> int:
    """The token that the tiny model samples most often: as EOS it gives replies of all lengths,
    which the true one, at random weights, hardly ever does."""
    tokenizer = load_tokenizer(tiny_model_folder)
    prompt_ids = [encode_prompt(tokenizer, prompt) for prompt in PROMPTS * 16]
    replies = generate(
        load_model(tiny_model_folder, torch.device("cpu")),
        prompt_ids,
        eos_token_id=-1,
        pad_token_id=0,
        temperature=1.0,
        uniforms=torch.rand(len(prompt_ids), 12, generator=torch.Generator().manual_seed(0)),
        batch_size=64,
    )
    return Counter(token for ids in replies.ids for token in ids[2:]).most_common(1)[0][0]


@pytest.fixture
def make_trainer(
    tiny_model_folder: Path, reward_model_folder: Path, common_token: int, tmp_path: Path
) -> Callable[..., PPOTrainer]:
    """A function that makes a trainer: its folder's name, the tokens of a micro batch, replies
    sampled at once, scorers beside the toy reward, and changes to the settings."""

    def make(
        name: str = "checkpoints",
        *,
        max_tokens: int = 200,
        max_sampled: int = 100,
        scorers: Mapping[str, Scorer] | None = None,
        config_scorers: Mapping[str, str] | None = None,
        **changes: Any,
    ) -> PPOTrainer:
        settings = SETTINGS | {"scorers": dict(config_scorers or {})} | changes
        config = PPOConfig.model_validate(settings)
        torch.manual_seed(0)
        ranks = Ranks(Compute(device="cpu"))
        tokenizer = load_tokenizer(tiny_model_folder)
        actor_critic, _ = load_actor_critic(
            config, tiny_model_folder, reward_model_folder, tokenizer, ranks.device
        )
        tokenizer.eos_token_id = common_token
        return PPOTrainer(
            config,
            actor_critic,
            {"reward_model": share_of_vowels, **(scorers or {})},
            tokenizer,
            Prompts(list(PROMPTS), [encode_prompt(tokenizer, prompt) for prompt in PROMPTS]),
            max_tokens,
            max_sampled,
            tmp_path / name,
            ranks,
        )

    return make


def reply(row: int, ids: list[int], score: float, **tensors: list[float]) -> Reply:
    return Reply(
        row,
        prompt="Where?",
        prompt_ids=[1, 2],
        completion_ids=ids,
        completion="there",
        entropies=torch.full((len(ids),), 0.5 * (row + 1)),
        scores={"reward_model": score, "other": 2 * score},
        **{name: torch.tensor(values) for name, values in tensors.items()},
    )


@pytest.fixture
def replies() -> list[Reply]:
    """A reply with EOS and one that was cut off."""
    return [
        reply(0, [4, 5, EOS], 1.0, logprobs=[-1.0, -2.0, -3.0], ref_logprobs=[-1.5, -2.0, -2.0],
              values=[0.1, 0.2, 0.3]),
        reply(1, [4, 4], 30.0, logprobs=[-1.0, -1.0], ref_logprobs=[-3.0, -1.0],
              values=[0.5, 0.5]),
    ]  # fmt: skip


@pytest.fixture
def assemble() -> Callable[..., Rollout]:
    """A rollout of such replies, with settings that are easy to follow by hand."""
    settings = {"gamma": 1.0, "lam": 1.0, "whiten_advantages": False, "missing_eos_penalty": 0.5}

    def make(replies: list[Reply], **changes: Any) -> Rollout:
        return assemble_rollout(PPOConfig.model_validate(settings | changes), replies, 0.1, EOS)

    return make
