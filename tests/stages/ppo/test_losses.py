"""The formulas against values worked out by hand, and what must not change them."""

import math

import pytest
import torch

from stages.ppo.losses import (
    adapt_kl_coef,
    estimate_advantages,
    estimate_kl,
    masked_mean,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)

ALL = torch.ones(1, 3, dtype=torch.bool)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def test_kl_estimators_by_hand():
    logprobs, reference = row(math.log(0.5), math.log(0.2)), row(math.log(0.25), math.log(0.4))
    x = [math.log(2), -math.log(2)]
    torch.testing.assert_close(estimate_kl(logprobs, reference, "k1"), row(*x))
    torch.testing.assert_close(
        estimate_kl(logprobs, reference, "k2"), row(*(value**2 / 2 for value in x))
    )
    # exp(-x) - 1 + x: 1/2 - 1 + log 2, and 2 - 1 - log 2
    expected = row(-0.5 + math.log(2), 1 - math.log(2))
    torch.testing.assert_close(estimate_kl(logprobs, reference, "k3"), expected)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_unbiased_estimators_average_to_the_kl(estimator):
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    kl = (policy * (policy / reference).log()).sum()
    estimates = estimate_kl(policy.log(), reference.log(), estimator)
    torch.testing.assert_close((policy * estimates).sum(), kl)


def test_the_score_comes_at_the_last_token_and_kl_at_every_token():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    kl = torch.tensor([[0.1, 0.2, 9.0], [0.3, 0.4, 0.5]])
    rewards = token_rewards(torch.tensor([2.0, -1.0]), kl, mask, kl_coef=0.5)
    expected = torch.tensor([[-0.05, 2 - 0.1, 0.0], [-0.15, -0.2, -1 - 0.25]])
    torch.testing.assert_close(rewards, expected)


def test_advantages_by_hand():
    rewards, values = row(0.0, 0.0, 1.0), row(0.5, 0.6, 0.8)
    gamma, lam = 0.9, 0.5
    delta_2 = 1.0 - 0.8
    delta_1 = 0.9 * 0.8 - 0.6
    delta_0 = 0.9 * 0.6 - 0.5
    advantage_1 = delta_1 + 0.45 * delta_2
    advantage_0 = delta_0 + 0.45 * advantage_1
    advantages, returns = estimate_advantages(rewards, values, ALL, gamma, lam)
    torch.testing.assert_close(advantages, row(advantage_0, advantage_1, delta_2))
    torch.testing.assert_close(returns, row(advantage_0 + 0.5, advantage_1 + 0.6, 1.0))


def test_lambda_one_gives_the_reward_still_to_come():
    rewards, values = row(1.0, 2.0, 4.0), torch.randn(1, 3)
    _, returns = estimate_advantages(rewards, values, ALL, 1.0, 1.0)
    torch.testing.assert_close(returns, row(7.0, 6.0, 4.0))


def test_padding_does_not_change_advantages():
    rewards, values = torch.randn(2, 3), torch.randn(2, 3)
    mask = torch.ones(2, 3, dtype=torch.bool)
    plain, plain_returns = estimate_advantages(rewards, values, mask, 0.99, 0.95)
    pad = torch.full((2, 2), 77.0)
    padded_mask = torch.cat([mask, torch.zeros(2, 2, dtype=torch.bool)], dim=1)
    padded, padded_returns = estimate_advantages(
        torch.cat([rewards, pad], 1), torch.cat([values, pad], 1), padded_mask, 0.99, 0.95
    )
    torch.testing.assert_close(padded[:, :3], plain)
    torch.testing.assert_close(padded_returns[:, :3], plain_returns)
    assert not padded[:, 3:].any()


def test_whitening_uses_valid_tokens_only():
    values = torch.tensor([[1.0, 3.0, 1000.0]])
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(whiten(values, mask), torch.tensor([[-1.0, 1.0, 0.0]]))
    torch.testing.assert_close(
        whiten(values, mask, shift_mean=False), torch.tensor([[1.0, 3.0, 0.0]])
    )


def test_policy_loss_by_hand():
    ratio = row(1.5, 0.5, 1.1)
    advantages = row(1.0, -2.0, 3.0)
    # A good token's ratio counts up to 1.2, a bad token's down to 0.8, the third as it is.
    expected = (-1.2 + 1.6 - 3.3) / 3
    result = policy_loss(ratio.log(), torch.zeros(1, 3), advantages, 0.2, num_tokens=3)
    torch.testing.assert_close(result.loss, torch.tensor(expected))
    torch.testing.assert_close(result.clip_fraction, torch.tensor(2 / 3))
    torch.testing.assert_close(result.ratio, ratio.mean())
    torch.testing.assert_close(result.approx_kl, (ratio.log() ** 2 / 2).mean())


def test_policy_gradient_raises_good_tokens_and_lowers_bad_ones():
    logprobs = torch.zeros(1, 3, requires_grad=True)
    advantages = row(1.0, -1.0, 0.0)
    policy_loss(logprobs, torch.zeros(1, 3), advantages, 0.2, num_tokens=3).loss.backward()
    torch.testing.assert_close(logprobs.grad, row(-1 / 3, 1 / 3, 0.0))


def test_clipped_tokens_get_no_gradient():
    logprobs = row(math.log(1.5), math.log(0.5), 0.0).requires_grad_()
    advantages = row(1.0, -1.0, 1.0)
    policy_loss(logprobs, torch.zeros(1, 3), advantages, 0.2, num_tokens=3).loss.backward()
    assert logprobs.grad[0, :2].tolist() == [0.0, 0.0]
    assert logprobs.grad[0, 2] < 0


def test_value_loss_by_hand():
    values, old, returns = row(1.0, 0.1, 2.0), row(0.5, 0.0, 2.0), row(2.0, 1.0, 2.0)
    # First: the prediction moved by .5, clipped to .7 it errs more: 1.3² against 1.
    expected = 0.5 * (1.3**2 + 0.9**2 + 0.0) / 3
    result = value_loss(values, old, returns, 0.2, num_tokens=3)
    torch.testing.assert_close(result.loss, torch.tensor(expected))
    torch.testing.assert_close(result.clip_fraction, torch.tensor(1 / 3))


def test_what_stands_at_padding_may_be_infinite_or_no_number():
    mask = torch.tensor([[True, True, False]])
    junk = row(1.0, 3.0, math.nan)
    assert masked_mean(junk, mask) == 2.0
    assert torch.equal(whiten(junk, mask), row(-1.0, 1.0, 0.0))
    rewards = token_rewards(torch.tensor([2.0]), row(0.1, 0.2, math.inf), mask, 0.5)
    torch.testing.assert_close(rewards, row(-0.05, 1.9, 0.0))
    advantages, returns = estimate_advantages(junk, junk, mask, 1.0, 1.0)
    torch.testing.assert_close(returns, row(4.0, 3.0, 0.0))
    torch.testing.assert_close(advantages, row(3.0, 0.0, 0.0))


def test_a_ratio_out_of_all_bounds_stays_finite():
    logprobs = row(0.0, -300.0).requires_grad_()
    result = policy_loss(logprobs, row(-300.0, 0.0), row(-1.0, 1.0), 0.2, num_tokens=2)
    result.loss.backward()
    assert torch.isfinite(result.loss)
    assert torch.isfinite(logprobs.grad).all()


def test_parts_add_up_to_the_mini_batch():
    torch.manual_seed(0)
    logprobs, old, advantages = (torch.randn(12) for _ in range(3))
    for loss in (policy_loss, value_loss):
        whole = loss(logprobs, old, advantages, 0.2, num_tokens=12)
        parts = [
            loss(logprobs[part], old[part], advantages[part], 0.2, num_tokens=12)
            for part in (slice(0, 5), slice(5, 8), slice(8, 12))
        ]
        for figure, shares in zip(whole, zip(*parts, strict=True), strict=True):
            torch.testing.assert_close(figure, sum(shares))


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(6.0, 0.1), (6.6, 0.1 * (1 + 0.1 * 0.5)), (60.0, 0.1 * (1 + 0.2 * 0.5)), (0.0, 0.1 * 0.9)],
    ids=["on target", "a tenth above", "far above", "far below"],
)
def test_the_adaptive_kl_coefficient_by_hand(kl, expected):
    assert adapt_kl_coef(0.1, kl, 6.0, 200, 100) == pytest.approx(expected)
