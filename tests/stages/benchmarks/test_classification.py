"""The bootstrap of F1 and MCC against scikit-learn on resampled questions."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from stages.benchmarks.classification import bootstrap_stderr

RNG = np.random.default_rng(0)
RIGHT = RNG.integers(0, 2, 60)
FIRST = np.where(RNG.random(60) < 0.7, RIGHT, 1 - RIGHT)
SECOND = np.where(RNG.random(60) < 0.8, FIRST, 1 - FIRST)


@pytest.mark.parametrize(("metric", "function"), [("f1", f1_score), ("mcc", matthews_corrcoef)])
def test_it_is_that_of_resampled_questions(metric, function):
    alone, differences = [], []
    for _ in range(300):
        drawn = RNG.integers(0, 60, 60)
        first = function(RIGHT[drawn], FIRST[drawn])
        alone.append(first)
        differences.append(first - function(RIGHT[drawn], SECOND[drawn]))
    pairs = [list(zip(RIGHT, given, strict=True)) for given in (FIRST, SECOND)]
    found = bootstrap_stderr(metric, pairs[0], seed=0)
    assert found == pytest.approx(np.std(alone, ddof=1), rel=0.15)
    found = bootstrap_stderr(metric, *pairs, seed=0)
    assert found == pytest.approx(np.std(differences, ddof=1), rel=0.15)


def test_answers_that_allow_no_standard_error_get_none():
    assert bootstrap_stderr("mcc", [(0, 0), (1, 0), (1, 0)], seed=0) is None  # one answer alone
    assert bootstrap_stderr("f1", [(0, 0), (2, 1)], seed=0) is None
    assert bootstrap_stderr("f1", [(1, 1)], seed=0) is None
