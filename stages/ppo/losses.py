"""The formulas of PPO for language models, as pure functions of tensors.

Shapes: B replies, T tokens of the longest reply, N tokens of some replies one after another. A
``mask`` (B, T) is True at a reply's tokens, its EOS included, and False at padding; every function
ignores what stands at padding. Losses are sums divided by ``num_tokens``, the tokens of the whole
mini-batch on all ranks, so that cutting it into micro batches changes nothing.
"""

from typing import Literal, NamedTuple

import torch

KLEstimator = Literal["k1", "k2", "k3"]
MAX_LOG_RATIO = 20.0
"""Beyond e²⁰ a ratio is out of every clip range, and would soon be infinite."""
MAX_KL_ERROR = 0.2
"""Bound of the adaptive controller's relative error (Ziegler et al. 2019, section 2.2)."""


class PolicyLoss(NamedTuple):
    """Scalars: the loss to minimise, and what happened inside."""

    loss: torch.Tensor
    clip_fraction: torch.Tensor
    """Share of tokens at which the clipped branch was the larger loss."""
    approx_kl: torch.Tensor
    """½ · mean squared log-ratio between the updated and the sampling policy."""
    ratio: torch.Tensor
    """Mean probability ratio; 1 before the first step."""


class ValueLoss(NamedTuple):
    """Scalars: the loss to minimise, and the share of tokens at which clipping was active."""

    loss: torch.Tensor
    clip_fraction: torch.Tensor


def estimate_kl(
    logprobs: torch.Tensor, ref_logprobs: torch.Tensor, estimator: KLEstimator
) -> torch.Tensor:
    """Per-token estimate (B, T) of KL(policy ‖ reference) from samples of the policy.

    With x = log policy − log reference: k1 = x (unbiased, noisy), k2 = x²/2 (biased, low variance),
    k3 = exp(−x) − 1 + x (unbiased, never negative). Schulman, "Approximating KL divergence", 2020.
    """
    log_ratio = logprobs - ref_logprobs
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return torch.exp(-log_ratio) - 1 + log_ratio


def adapt_kl_coef(
    kl_coef: float, kl: float, kl_target: float, kl_horizon: int, num_episodes: int
) -> float:
    """The KL coefficient after ``num_episodes`` replies with mean KL ``kl``, nats: proportional
    control in log space towards ``kl_target``. Ziegler et al. 2019, section 2.2."""
    error = min(max(kl / kl_target - 1, -MAX_KL_ERROR), MAX_KL_ERROR)
    return kl_coef * (1 + error * num_episodes / kl_horizon)


def token_rewards(
    scores: torch.Tensor, kl: torch.Tensor, mask: torch.Tensor, kl_coef: float
) -> torch.Tensor:
    """Reward of each token (B, T): −``kl_coef`` · KL, and at the last token also the score (B,).

    Ziegler et al. 2019, section 2.
    """
    rewards = torch.where(mask, -kl_coef * kl, 0.0)
    last = mask.sum(-1) - 1
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def estimate_advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimation: advantages and returns, both (B, T).

    ``values[:, t]`` is the value of the state in which token t is chosen. The state after the last
    token is worth nothing. Schulman et al. 2016, equation 16.
    """
    values = torch.where(mask, values, 0.0)
    rewards = torch.where(mask, rewards, 0.0)
    advantages = torch.zeros_like(rewards)
    advantage = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(rewards[:, 0])
    for step in reversed(range(rewards.shape[1])):
        delta = rewards[:, step] + gamma * next_value - values[:, step]
        advantage = delta + gamma * lam * advantage
        advantages[:, step] = advantage
        next_value = values[:, step]
    return advantages * mask, (advantages + values) * mask


def whiten(values: torch.Tensor, mask: torch.Tensor, *, shift_mean: bool = True) -> torch.Tensor:
    """Scale to unit variance over the valid tokens, and to mean zero unless the mean is kept.

    Huang et al. 2024 ("The N+ implementation details"), details on whitening.
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean).square(), mask)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return torch.where(mask, whitened if shift_mean else whitened + mean, 0.0)


def policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    cliprange: float,
    num_tokens: int,
) -> PolicyLoss:
    """The clipped surrogate objective, negated, of N tokens. Schulman et al. 2017, equation 7."""
    log_ratio = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return PolicyLoss(
        loss=torch.maximum(plain, clipped).sum() / num_tokens,
        clip_fraction=(clipped > plain).sum() / num_tokens,
        approx_kl=(log_ratio.detach().square() / 2).sum() / num_tokens,
        ratio=ratio.detach().sum() / num_tokens,
    )


def value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    cliprange_value: float,
    num_tokens: int,
) -> ValueLoss:
    """Half the squared error of N values, the larger of plain and clipped. Huang et al. 2022 ("The
    37 implementation details"), detail 9."""
    clipped = values.clamp(old_values - cliprange_value, old_values + cliprange_value)
    plain_error = (values - returns).square()
    clipped_error = (clipped - returns).square()
    return ValueLoss(
        loss=0.5 * torch.maximum(plain_error, clipped_error).sum() / num_tokens,
        clip_fraction=(clipped_error > plain_error).sum() / num_tokens,
    )


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the valid tokens, a scalar. Selected, not multiplied: what stands at padding may be
    infinite."""
    return torch.where(mask, values, 0.0).sum() / mask.sum()
