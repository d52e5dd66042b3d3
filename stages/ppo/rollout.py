"""A rollout: replies sampled from the policy, scored, and everything that the update needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from stages.core.batching import token_budget_batches
from stages.core.chat import Prompt, decode_completion
from stages.core.config import PPOConfig
from stages.core.generation import generate
from stages.core.logprobs import SequenceBatch, collate, token_logprobs
from stages.core.models import padding_id, supports_bf16
from stages.core.ranks import Ranks
from stages.core.scoring import Scorer
from stages.ppo.actor_critic import ActorCritic, Role
from stages.ppo.losses import (
    estimate_advantages,
    estimate_kl,
    token_rewards,
    whiten,
)
from stages.ppo.scores import weighted_sum


@dataclass
class Reply:
    """A sampled reply of T tokens; tensors are (T,) and on the CPU."""

    row: int
    """Its place in the rollout."""
    prompt: Prompt
    prompt_ids: list[int]
    completion_ids: list[int]
    completion: str
    logprobs: torch.Tensor
    """Under the policy that sampled."""
    entropies: torch.Tensor
    """Of the distributions that the tokens were drawn from, nats."""
    scores: dict[str, float] = field(default_factory=dict)
    """By scorer, before weights and clipping."""
    ref_logprobs: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    values: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True)
class Rollout:
    """B replies with at most T tokens, equal on all ranks; tensors lie on the CPU."""

    replies: list[Reply]
    scores: torch.Tensor
    """(B,) weighted and clipped score of each reply, before the penalty for a missing EOS."""
    has_eos: torch.Tensor
    """(B,) True where the reply ended by itself."""
    mask: torch.Tensor
    """(B, T) True at tokens of the reply."""
    logprobs: torch.Tensor
    """(B, T) under the policy that sampled."""
    kl: torch.Tensor
    """(B, T) log-ratio to the reference, k1, whatever the reward uses."""
    kl_penalty: torch.Tensor
    """(B, T) the estimate that the reward uses, before ``kl_coef``."""
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


class FrozenStates:
    """The output of the frozen layers for this rank's replies, kept over the epochs of an update:
    for each role and row a tensor (length, H) in main memory."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], torch.Tensor] = {}

    def keep(self, role: str, replies: list[Reply], states: torch.Tensor | None) -> None:
        """Remember ``states`` (B, L, H) of replies padded on the right."""
        if states is not None:
            for reply, row in zip(replies, states, strict=True):
                self._rows[role, reply.row] = row[: len(reply)].to("cpu", copy=True)

    def of(self, role: str, replies: list[Reply]) -> torch.Tensor | None:
        """The states (B, L, H), padded; None where there are none."""
        if (role, replies[0].row) not in self._rows:
            return None
        return pad_sequence([self._rows[role, reply.row] for reply in replies], batch_first=True)


def sample_replies(
    config: PPOConfig,
    actor_critic: ActorCritic,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Mapping[int, Prompt],
    prompt_ids: Mapping[int, list[int]],
    uniforms: torch.Tensor,
    batch_size: int,
) -> list[Reply]:
    """One reply to each of this rank's prompts, which are given by their row in the rollout.

    Args:
        uniforms: (B, T) numbers in [0, 1), the same on all ranks; see ``generate``.
        batch_size: replies that are sampled at once.
    """
    rows = list(prompts)
    with actor_critic.sampling() as model:
        sampled = generate(
            model,
            [prompt_ids[row] for row in rows],
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=padding_id(tokenizer),
            temperature=config.temperature,
            uniforms=uniforms[rows],
            batch_size=batch_size,
        )
    return [
        Reply(
            row,
            prompts[row],
            prompt_ids[row],
            ids,
            decode_completion(tokenizer, ids),
            logprobs,
            entropies,
        )
        for row, ids, logprobs, entropies in zip(rows, *sampled, strict=True)
    ]


@torch.no_grad()
def rate_replies(
    config: PPOConfig,
    actor_critic: ActorCritic,
    scorers: Mapping[str, Scorer],
    replies: list[Reply],
    pad_token_id: int,
    max_tokens: int,
) -> FrozenStates:
    """Fill in scores, reference log-probabilities and values of this rank's replies.

    The policy's log-probabilities come from sampling: in float32 a second forward pass would give
    the same. In bfloat16 the two differ by up to some hundredths, so there it is made.

    Args:
        max_tokens: tokens of a micro batch, padding included.
    """
    prompts = [reply.prompt for reply in replies]
    completions = [reply.completion for reply in replies]
    for name, scorer in scorers.items():
        for reply, score in zip(replies, scorer(prompts, completions), strict=True):
            reply.scores[name] = score
    frozen = FrozenStates()
    by_length = token_budget_batches([len(reply) for reply in replies], max_tokens)
    parts = [[replies[row] for row in rows] for rows in by_length]

    def fill_in(name: str, role: Role, frozen_name: str) -> None:
        with role.active() as model:
            for part in parts:
                batch = collate_replies(part, pad_token_id, actor_critic.device)
                lower = frozen.of(frozen_name, part)
                if lower is None:
                    lower = role.frozen_states(batch.input_ids)
                    frozen.keep(frozen_name, part, lower)
                with role.states(model, batch, lower) as states:
                    if name == "values":
                        flat = actor_critic.values(states)
                    else:
                        ids = batch.completion_ids
                        flat = token_logprobs(model, states, ids, config.temperature)
                lengths = [len(reply.completion_ids) for reply in part]
                for reply, values in zip(part, flat.cpu().split(lengths), strict=True):
                    setattr(reply, name, values)

    # Below the policy's adapter the reference is the same model.
    fill_in("ref_logprobs", actor_critic.reference, "policy")
    if supports_bf16(actor_critic.device):
        fill_in("logprobs", actor_critic.policy, "policy")
    fill_in("values", actor_critic.value, "value")
    return frozen


def assemble_rollout(
    config: PPOConfig, replies: list[Reply], kl_coef: float, eos_token_id: int
) -> Rollout:
    """Rewards, advantages and returns of the replies of all ranks."""

    def padded(name: str) -> torch.Tensor:
        return pad_sequence([getattr(reply, name) for reply in replies], batch_first=True)

    lengths = torch.tensor([len(reply.completion_ids) for reply in replies])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    has_eos = torch.tensor([reply.completion_ids[-1] == eos_token_id for reply in replies])
    by_scorer = {name: [reply.scores[name] for reply in replies] for name in replies[0].scores}
    scores = torch.tensor(weighted_sum(by_scorer, config.scorer_weights))
    scores = scores.clamp(-config.clip_score, config.clip_score)
    logprobs, values = padded("logprobs"), padded("values")
    ref_logprobs = padded("ref_logprobs")
    penalized = scores - config.missing_eos_penalty * ~has_eos
    kl_penalty = estimate_kl(logprobs, ref_logprobs, config.kl_estimator)
    rewards = token_rewards(penalized, kl_penalty, mask, kl_coef)
    if config.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = estimate_advantages(rewards, values, mask, config.gamma, config.lam)
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    return Rollout(
        replies=replies,
        scores=scores,
        has_eos=has_eos,
        mask=mask,
        logprobs=logprobs,
        kl=logprobs - ref_logprobs,
        kl_penalty=kl_penalty,
        entropy=padded("entropies"),
        rewards=rewards,
        values=values,
        advantages=advantages,
        returns=returns,
    )


def collect_rollout(
    config: PPOConfig,
    actor_critic: ActorCritic,
    scorers: Mapping[str, Scorer],
    replies: list[Reply],
    tokenizer: PreTrainedTokenizerBase,
    kl_coef: float,
    max_tokens: int,
    ranks: Ranks,
) -> tuple[Rollout, FrozenStates]:
    """Rate this rank's replies and put those of all ranks together: each rank then has the same
    rollout, and statistics over it need no more exchange."""
    pad_token_id = padding_id(tokenizer)
    frozen = rate_replies(config, actor_critic, scorers, replies, pad_token_id, max_tokens)
    everyones = sorted(ranks.gather(replies), key=lambda reply: reply.row)
    return assemble_rollout(config, everyones, kl_coef, tokenizer.eos_token_id), frozen


def collate_replies(replies: list[Reply], pad_token_id: int, device: torch.device) -> SequenceBatch:
    """The replies behind their prompts as one batch."""
    return collate(
        [reply.prompt_ids for reply in replies],
        [reply.completion_ids for reply in replies],
        pad_token_id,
        device,
    )
