"""A rollout: replies sampled from the policy, scored, and everything that the update needs."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase

from stages.core.chat import Prompt, decode_completion
from stages.core.config import PPOConfig
from stages.core.generation import generate
from stages.core.logprobs import SequenceBatch, collate, token_logprobs
from stages.core.models import active_adapter, autocast, padding_id
from stages.core.scoring import Scorer
from stages.ppo.losses import (
    estimate_advantages,
    estimate_kl,
    masked_mean,
    token_rewards,
    whiten,
)

POLICY = "policy"
VALUE = "value"


@dataclass(frozen=True)
class Rollout:
    """One batch of B replies with at most T tokens; tensors lie on the model's device."""

    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    completions: list[str]
    scores: torch.Tensor
    """(B,) normalised score of each reply, before the penalty for a missing EOS."""
    has_eos: torch.Tensor
    """(B,) True where the reply ended by itself."""
    mask: torch.Tensor
    """(B, T) True at tokens of the reply."""
    logprobs: torch.Tensor
    """(B, T) under the policy that sampled."""
    kl: torch.Tensor
    """(B, T) log-ratio to the reference, k1, whatever the reward uses."""
    entropy: torch.Tensor
    """(B, T)"""
    rewards: torch.Tensor
    """(B, T) score and KL penalty."""
    values: torch.Tensor
    """(B, T) before the update."""
    advantages: torch.Tensor
    """(B, T)"""
    returns: torch.Tensor
    """(B, T)"""

    @property
    def lengths(self) -> torch.Tensor:
        """(B,) tokens of each reply."""
        return self.mask.sum(-1)


class ValueModel(nn.Module):
    """The value adapter of the shared backbone and a linear head on its hidden states."""

    def __init__(self, model: PeftModel, head: nn.Linear) -> None:
        super().__init__()
        self.head = head
        self._backbone = [model]  # in a list: not a submodule, its parameters are not ours

    def forward(self, batch: SequenceBatch) -> torch.Tensor:
        """Values (B, C) of the states in which each completion token is chosen."""
        model = self._backbone[0]
        decoder = model.get_base_model().get_decoder()
        with active_adapter(model, VALUE):
            hidden = decoder(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
            ).last_hidden_state
        num_tokens = batch.completion_mask.shape[1]
        with torch.autocast(hidden.device.type, enabled=False):  # small, and worth the precision
            return self.head(hidden[:, -num_tokens - 1 : -1].float()).squeeze(-1)


def collect_rollout(
    config: PPOConfig,
    model: PeftModel,
    value_model: ValueModel,
    scorer: Scorer,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Prompt],
    prompt_ids: list[list[int]],
    generator: torch.Generator,
    micro_batch_size: int,
) -> Rollout:
    """Sample a reply to each prompt and compute rewards, advantages and returns."""
    with active_adapter(model, POLICY):
        completion_ids = generate(
            model,
            prompt_ids,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=padding_id(tokenizer),
            max_new_tokens=config.max_completion_length,
            temperature=config.temperature,
            generator=generator,
            batch_size=config.batch_size,
        )
    completions = [decode_completion(tokenizer, ids) for ids in completion_ids]
    device = model.device
    scores = torch.tensor(scorer(prompts, completions), device=device)
    scores = scores.clamp(-config.clip_score, config.clip_score)
    has_eos = torch.tensor([ids[-1] == tokenizer.eos_token_id for ids in completion_ids]).to(device)

    lengths = torch.tensor([len(ids) for ids in completion_ids], device=device)
    mask = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
    logprobs, ref_logprobs, entropy, values = (
        torch.zeros(mask.shape, device=device) for _ in range(4)
    )
    everything = list(range(len(prompts)))
    for rows in micro_batches(everything, prompt_ids, completion_ids, micro_batch_size):
        batch = collate(
            [prompt_ids[row] for row in rows],
            [completion_ids[row] for row in rows],
            padding_id(tokenizer),
            device,
        )
        place = (
            torch.tensor(rows, device=device)[:, None],
            torch.arange(batch.completion_mask.shape[1], device=device),
        )
        with torch.no_grad(), autocast(device):
            with active_adapter(model, POLICY):
                logprobs[place], entropy[place] = token_logprobs(model, batch, config.temperature)
            with active_adapter(model, None):
                ref_logprobs[place], _ = token_logprobs(model, batch, config.temperature)
            values[place] = value_model(batch)

    kl_penalty = estimate_kl(logprobs, ref_logprobs, config.kl_estimator)
    penalized = scores - config.missing_eos_penalty * ~has_eos
    rewards = token_rewards(penalized, kl_penalty, mask, config.kl_coef)
    if config.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = estimate_advantages(rewards, values, mask, config.gamma, config.lam)
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    return Rollout(
        prompts=prompts,
        prompt_ids=prompt_ids,
        completion_ids=completion_ids,
        completions=completions,
        scores=scores,
        has_eos=has_eos,
        mask=mask,
        logprobs=logprobs * mask,
        kl=(logprobs - ref_logprobs) * mask,
        entropy=entropy * mask,
        rewards=rewards,
        values=values * mask,
        advantages=advantages,
        returns=returns,
    )


def micro_batches(
    rows: list[int],
    prompt_ids: list[list[int]],
    completion_ids: list[list[int]],
    size: int,
) -> Iterator[list[int]]:
    """The rows in groups of similar length, for little padding."""
    order = sorted(rows, key=lambda row: len(prompt_ids[row]) + len(completion_ids[row]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def summarize(rollout: Rollout, kl_coef: float) -> dict[str, float]:
    """Figures of a rollout under TRL's names; KL and rewards are sums over a reply, in nats and
    standard deviations of the score."""
    non_score = (-kl_coef * rollout.kl).sum(-1).mean()
    return {
        "objective/scores": float(rollout.scores.mean()),
        "objective/scores_std": float(rollout.scores.std(correction=0)),
        "objective/kl": float(rollout.kl.sum(-1).mean()),
        "objective/entropy": float(masked_mean(rollout.entropy, rollout.mask)),
        "objective/non_score_reward": float(non_score),
        "objective/rlhf_reward": float(rollout.rewards.sum(-1).mean()),
        "val/eos_rate": float(rollout.has_eos.float().mean()),
        "val/completion_length": float(rollout.lengths.float().mean()),
        "val/explained_variance": _explained_variance(rollout),
    }


def _explained_variance(rollout: Rollout) -> float:
    returns = rollout.returns[rollout.mask]
    errors = returns - rollout.values[rollout.mask]
    return float(1 - errors.var(correction=0) / returns.var(correction=0).clamp(min=1e-8))
