"""Figures read as they are meant."""

from stages.core.wording import number, number_interval, percent, percent_interval, points


def test_percent_does_not_round_to_certainty() -> None:
    assert [percent(share) for share in (0.0, 0.004, 0.834, 0.996, 0.9999, 1.0)] == [
        "0\u00a0%", "0.4\u00a0%", "83\u00a0%", "99.6\u00a0%", "99.9\u00a0%", "100\u00a0%"
    ]  # fmt: skip


def test_numbers_have_true_signs() -> None:
    assert number(-1.234) == "−1.23"
    assert number(0.5, 1, signed=True) == "+0.5"
    assert points(-0.0312) == "−3.1\u00a0points"


def test_intervals_are_in_words() -> None:
    assert percent_interval((0.5, 0.4, 0.6)) == (
        "50\u00a0% (95\u00a0% interval 40\u00a0% to 60\u00a0%)"
    )
    assert number_interval((1.0, -1.0, 3.0), 1, signed=True) == (
        "+1.0 (95\u00a0% interval −1.0 to +3.0)"
    )
