"""Figures as a reader expects them: shares in per cent, true minus signs, intervals in words."""

Triple = tuple[float, float, float]
"""A value, and the ends of its 95 % interval."""


def percent(share: float) -> str:
    """0.834 → 83 %; rounded so that only a true 0 or 1 reads 0 % or 100 %."""
    rounded = round(100 * share)
    if rounded in (0, 100) and 100 * share != rounded:
        return f"{min(max(100 * share, 0.1), 99.9):.1f}\u00a0%"
    return f"{rounded}\u00a0%"


def number(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """With a true minus sign, and a plus sign where ``signed``."""
    value = round(value, digits) or 0.0  # what rounds to zero has no sign
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−")


def points(difference: float, *, signed: bool = True) -> str:
    """A difference of two shares: 0.034 → +3.4 points."""
    return f"{number(100 * difference, 1, signed=signed)}\u00a0points"


def points_interval(estimate: Triple) -> str:
    """+3.4 points (95 % interval +1.2 to +5.6)."""
    value, low, high = (number(100 * item, 1, signed=True) for item in estimate)
    return f"{value}\u00a0points (95\u00a0% interval {low} to {high})"


def percent_interval(estimate: Triple) -> str:
    """83 % (95 % interval 78 % to 88 %)."""
    value, low, high = map(percent, estimate)
    return f"{value} (95\u00a0% interval {low} to {high})"


def number_interval(estimate: Triple, digits: int = 2, *, signed: bool = False) -> str:
    """+0.31 (95 % interval +0.25 to +0.37)."""
    value, low, high = (number(item, digits, signed=signed) for item in estimate)
    return f"{value} (95\u00a0% interval {low} to {high})"
