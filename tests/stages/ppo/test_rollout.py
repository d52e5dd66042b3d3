"""From replies to rewards: what a rollout holds, by hand and against plain forward passes."""

import pytest
import torch

from stages.ppo.rollout import FrozenStates


def test_rewards_returns_and_advantages_by_hand(assemble, replies):
    rollout = assemble(replies)
    assert rollout.has_eos.tolist() == [True, False]
    assert rollout.scores.tolist() == [1.0, 5.0]  # clipped
    # −0.1 · (log policy − log reference); the score at the last token, less .5 without an EOS.
    expected = torch.tensor([[-0.05, 0.0, 0.1 + 1.0], [-0.2, 5.0 - 0.5, 0.0]])
    torch.testing.assert_close(rollout.rewards, expected)
    returns = torch.tensor([[1.05, 1.1, 1.1], [4.3, 4.5, 0.0]])
    torch.testing.assert_close(rollout.returns, returns)
    torch.testing.assert_close(
        rollout.advantages, torch.tensor([[0.95, 0.9, 0.8], [3.8, 4.0, 0.0]])
    )


def test_scores_are_weighted_before_they_are_clipped(assemble, replies):
    weights = {"reward_model": 1.0, "other": -0.75}
    rollout = assemble(replies, scorers={"other": "o.py:score"}, scorer_weights=weights)
    assert rollout.scores.tolist() == [-0.5, -5.0]


def test_advantages_are_whitened_over_the_tokens_of_all_replies(assemble, replies):
    rollout = assemble(replies, whiten_advantages=True)
    valid = rollout.advantages[rollout.mask]
    assert float(valid.mean()) == pytest.approx(0, abs=1e-6)
    assert float(valid.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert rollout.advantages[1, 2] == 0


def test_whitened_rewards_keep_their_mean(assemble, replies):
    plain, whitened = assemble(replies), assemble(replies, whiten_rewards=True)
    assert float(whitened.rewards[plain.mask].std(correction=0)) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(
        whitened.rewards[plain.mask].mean(), plain.rewards[plain.mask].mean()
    )


def test_frozen_states_come_back_padded_for_any_company(replies):
    frozen = FrozenStates()
    states = torch.randn(2, 5, 3)
    frozen.keep("policy", replies, states)
    frozen.keep("value", replies, -states)
    torch.testing.assert_close(frozen.of("policy", [replies[1]]), states[1:, :4])
    both = frozen.of("value", replies[::-1])
    torch.testing.assert_close(both[1], -states[0])
    assert not both[0, 4:].any()
    assert FrozenStates().of("policy", replies) is None
