"""The line and the curves that a user sees."""

from stages.ppo.guard import Alarm
from stages.ppo.report import curves, line

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
