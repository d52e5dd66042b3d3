"""From replies to rewards: what a rollout holds, by hand and against plain forward passes."""

import pytest
import torch

from stages.core.config import PPOConfig
from stages.ppo.rollout import FrozenStates, Reply, assemble_rollout, summarize

EOS = 9


def reply(row, ids, score, *, logprobs, ref_logprobs, values):
    return Reply(
        row,
        prompt="Where?",
        prompt_ids=[1, 2],
        completion_ids=ids,
        completion="there",
        logprobs=torch.tensor(logprobs),
        entropies=torch.full((len(ids),), 0.5 * (row + 1)),
        scores={"reward_model": score, "other": 2 * score},
        ref_logprobs=torch.tensor(ref_logprobs),
        values=torch.tensor(values),
    )


@pytest.fixture
def replies():
    return [
        reply(0, [4, 5, EOS], 1.0, logprobs=[-1.0, -2.0, -3.0], ref_logprobs=[-1.5, -2.0, -2.0],
              values=[0.1, 0.2, 0.3]),
        reply(1, [4, 4], 30.0, logprobs=[-1.0, -1.0], ref_logprobs=[-3.0, -1.0],
              values=[0.5, 0.5]),
    ]  # fmt: skip


def assemble(replies, **changes):
    settings = {"gamma": 1.0, "lam": 1.0, "whiten_advantages": False, "missing_eos_penalty": 0.5}
    return assemble_rollout(PPOConfig.model_validate(settings | changes), replies, 0.1, EOS)


def test_rewards_returns_and_advantages_by_hand(replies):
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


def test_scores_are_weighted_before_they_are_clipped(replies):
    weights = {"reward_model": 1.0, "other": -0.75}
    rollout = assemble(replies, scorers={"other": "o.py:score"}, scorer_weights=weights)
    assert rollout.scores.tolist() == [-0.5, -5.0]


def test_advantages_are_whitened_over_the_tokens_of_all_replies(replies):
    rollout = assemble(replies, whiten_advantages=True)
    valid = rollout.advantages[rollout.mask]
    assert float(valid.mean()) == pytest.approx(0, abs=1e-6)
    assert float(valid.std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert rollout.advantages[1, 2] == 0


def test_whitened_rewards_keep_their_mean(replies):
    plain, whitened = assemble(replies), assemble(replies, whiten_rewards=True)
    assert float(whitened.rewards[plain.mask].std(correction=0)) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(
        whitened.rewards[plain.mask].mean(), plain.rewards[plain.mask].mean()
    )


def test_the_figures_by_hand(replies):
    figures = summarize(assemble(replies), kl_coef=0.1)
    assert figures["objective/kl"] == pytest.approx((0.5 + 0.0 - 1.0 + 2.0) / 2)
    assert figures["objective/scores"] == 3.0
    assert figures["objective/non_score_reward"] == pytest.approx(-0.075)
    assert figures["objective/entropy"] == pytest.approx((3 * 0.5 + 2 * 1.0) / 5)
    assert figures["val/eos_rate"] == 0.5
    assert figures["val/completion_length"] == 2.5
    assert figures["val/num_tokens"] == 5
    assert figures["val/distinct_2"] == 1.0  # (4, 5), (5, EOS), (4, 4)
    assert figures["scores/reward_model"] == 15.5
    assert figures["scores/other"] == 31.0


def test_repeated_pairs_lower_the_share_of_distinct_ones(replies):
    replies[1].completion_ids = [4, 5]
    assert summarize(assemble(replies), 0.1)["val/distinct_2"] == pytest.approx(2 / 3)


def test_values_that_equal_the_returns_explain_all_variance(replies):
    before = summarize(assemble(replies), 0.1)["val/explained_variance"]
    for one, returns in zip(replies, ([1.05, 1.1, 1.1], [4.3, 4.5]), strict=True):
        one.values = torch.tensor(returns)
    assert before < 0.5
    assert summarize(assemble(replies), 0.1)["val/explained_variance"] == pytest.approx(1)


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
