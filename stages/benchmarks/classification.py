"""Standard errors of F1 and MCC, which are functions of all answers together, by the bootstrap.

Questions with the same right answer and the same answers of the models are alike, so a resample is
a draw of how many there are of each kind: a hundred thousand resamples take milliseconds, where the
harness's own way, one resample of questions after the other, takes minutes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUM_SAMPLES = 100_000
"""Resamples, as many as the harness draws by default."""
METRICS = ("f1", "mcc")
Answered = Sequence[Sequence[float]]
"""A right answer and a given one (0 or 1) for each question."""


def bootstrap_stderr(
    metric: str, first: Answered, second: Answered | None = None, *, seed: int
) -> float | None:
    """The standard error of a model's F1 or MCC, or of the difference between two models' that
    answered the same questions; None where the answers allow none."""
    right, given = np.array(first, dtype=int).T
    other = given if second is None else np.array(second, dtype=int)[:, 1]
    if max(right.max(), given.max(), other.max()) > 1 or len(right) < 2:
        return None
    kinds = np.bincount(right * 4 + given * 2 + other, minlength=8) / len(right)
    draws = np.random.default_rng(seed).multinomial(len(right), kinds, NUM_SAMPLES)
    counts = draws.reshape(-1, 2, 2, 2).astype(float)  # right answer, first model's, second's
    function = {"f1": _f1, "mcc": _mcc}[metric]
    values = function(counts.sum(axis=3))
    if second is not None:
        values = values - function(counts.sum(axis=2))
    return float(values.std(ddof=1)) or None


def _f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of (…, right answer, given answer); 0 where it is undefined, as scikit-learn has it."""
    both = 2 * counts[:, 1, 1]
    return _ratio(both, both + counts[:, 0, 1] + counts[:, 1, 0])


def _mcc(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    true_negative, false_positive = counts[:, 0, 0], counts[:, 0, 1]
    false_negative, true_positive = counts[:, 1, 0], counts[:, 1, 1]
    products = true_positive * true_negative - false_positive * false_negative
    margins = (
        (true_positive + false_positive)
        * (true_positive + false_negative)
        * (true_negative + false_positive)
        * (true_negative + false_negative)
    )
    return _ratio(products, np.sqrt(margins))


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
