"""The figures, the line and the curves that a user sees."""

import pytest
import torch

from stages.ppo.guard import Alarm
from stages.ppo.report import curves, line, summarize

ROW = {"score": 0.5, "kl": 1.5, "length": 20.0, "eos_rate": 0.75, "entropy": 2.0}


def test_the_line_names_update_episodes_and_time_left():
    text = line({"update": 3, "episodes": 192, **ROW}, 30, 125.4)
    assert text == (
        "update 3/30  episodes 192  score 0.500  kl 1.50  length 20.0  eos 0.75  entropy 2.00  "
        "2:05 left"
    )


def test_curves_mark_the_guards_alarms():
    history = [{"update": n, "episodes": 64 * n, **ROW} for n in range(1, 6)]
    figure = curves(history, [Alarm(2, "the score fell")])
    for axes in figure.axes:
        dashed = [item for item in axes.lines if item.get_linestyle() == "--"]
        assert [list(item.get_xdata()) for item in dashed] == [[128, 128]]
    assert figure.get_suptitle() == "dashed: alarm of the guard"
    assert not curves(history, []).get_suptitle()


def test_the_figures_by_hand(assemble, replies):
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


def test_repeated_pairs_lower_the_share_of_distinct_ones(assemble, replies):
    replies[1].completion_ids = [4, 5]
    assert summarize(assemble(replies), 0.1)["val/distinct_2"] == pytest.approx(2 / 3)


def test_values_that_equal_the_returns_explain_all_variance(assemble, replies):
    before = summarize(assemble(replies), 0.1)["val/explained_variance"]
    for one, returns in zip(replies, ([1.05, 1.1, 1.1], [4.3, 4.5]), strict=True):
        one.values = torch.tensor(returns)
    assert before < 0.5
    assert summarize(assemble(replies), 0.1)["val/explained_variance"] == pytest.approx(1)
