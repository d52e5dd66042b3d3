"""Which plots there are, and that they can be drawn from little."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest

from stages.reward_model_card import plots
from stages.reward_model_card.figures import headline
from stages.reward_model_card.pairs import Judged, Sides


def names(judged: Judged) -> list[str]:
    drawn = list(plots.draw(judged, headline(judged, num_samples=50, seed=0)))
    for plot in drawn:
        plot.figure.savefig(BytesIO())
        assert plot.about["title"]
        assert plot.about["caption"]
    return [plot.about["name"] for plot in drawn]


def test_all_plots(many_judged: Judged) -> None:
    assert names(many_judged) == [
        "accuracies", "scores", "calibration", "accuracy_by_group", "guard_agreement",
    ]  # fmt: skip


@pytest.mark.parametrize("margins", [[1.0], [0.0] * 30, [-1.0, 1.0]])
def test_few_or_equal_pairs(margins: list[float], make_judged: Callable[..., Judged]) -> None:
    assert names(make_judged(margins)) == ["accuracies", "scores", "calibration"]


def test_groups_by_length_alone(make_judged: Callable[..., Judged]) -> None:
    lengths = Sides(np.arange(40.0), np.full(40, 20.0))
    assert "accuracy_by_group" in names(make_judged([1.0] * 40, lengths=lengths))
