"""When the guard rings, worked out by hand, and that its state survives a checkpoint."""

import json
import math
import random

import pytest

from stages.core.config import GuardConfig
from stages.ppo.guard import Guard

NOISE = [-0.5, 0.5, -0.5, 0.5]
"""Four scores around their mean: standard deviation .577, standard error of the mean .289."""


def guard(**changes):
    settings = {"scorer": "watched", "window": 2, "tolerance": 3.0, "kl_ceiling": 10.0}
    return Guard(GuardConfig.model_validate(settings | changes))


def observe(guard, pairs, start=0):
    """Feed (optimised, watched) means; returns what came of each."""
    return [
        guard.observe_scores(update, [optimized] * 4, [watched + noise for noise in NOISE])
        for update, (optimized, watched) in enumerate(pairs, start=start)
    ]


def test_a_rising_watched_score_is_the_best_each_time_a_window_is_full():
    results = observe(guard(), [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)])
    assert [is_best for _, is_best in results] == [False, True, True, True]
    assert all(alarm is None for alarm, _ in results)


def test_the_standard_errors_by_hand():
    one = guard()
    observe(one, [(0, 1.0), (0, 3.0)])
    assert one.best.watched == 2.0
    # sqrt(.3333 / 4) each; two of them averaged: divided by sqrt(2).
    assert one.best.watched_error == pytest.approx((1 / 3 / 4) ** 0.5 / 2**0.5)


@pytest.mark.parametrize(("fall", "rings"), [(1.34, False), (1.35, True)])
def test_it_rings_beyond_three_standard_errors_and_the_luck_of_the_best(fall, rings):
    # Each window's error is .2041, the difference's .2887. The best of four scorings may owe
    # sqrt(2 ln 4) = 1.665 errors to luck: 4.665 of them are 1.347.
    pairs = [(0, 5.0), (0, 5.0), (1, 5.0 - fall), (1, 5.0 - fall)]
    alarm, _ = observe(guard(), pairs)[-1]
    assert (alarm is not None) == rings


def runs_that_ring(slope, num_runs=25, num_updates=200, num_replies=16):
    """How many runs have an alarm whose watched score falls by ``slope`` deviations an update
    while the optimised one rises."""
    rng, count = random.Random(0), 0
    for _ in range(num_runs):
        one = guard(window=5)
        for update in range(num_updates):
            watched = [rng.gauss(slope * update) for _ in range(num_replies)]
            one.observe_scores(update, [float(update)], watched)
        count += bool(one.alarms)
    return count


def test_a_long_run_does_not_ring_by_chance():
    assert runs_that_ring(0.0) == 0


def test_a_slow_fall_rings():
    assert runs_that_ring(-0.03) == 25


def test_a_fall_together_with_the_optimised_score_is_no_gaming():
    results = observe(guard(), [(5, 5.0), (5, 5.0), (1, 1.0), (1, 1.0)])
    assert all(alarm is None for alarm, _ in results)


def test_the_alarm_says_what_happened():
    alarm, _ = observe(guard(), [(0, 5.0), (0, 5.0), (1, 1.0)])[-1]
    assert alarm.update == 2
    assert alarm.reason == (
        "watched fell from 5.000 to 3.000 while the optimised score went from 0.000 to 0.500"
    )


def test_after_an_alarm_it_compares_anew():
    one = guard()
    observe(one, [(0, 5.0), (0, 5.0), (1, 3.0), (2, 3.0)])
    assert len(one.alarms) == 1
    observe(one, [(2, 3.0)] * 4, start=4)
    assert len(one.alarms) == 1
    observe(one, [(2, 1.0)] * 2, start=8)
    assert len(one.alarms) == 2


def test_where_alarms_raise_the_kl_coefficient_they_repeat_until_the_watched_score_is_back():
    one = guard(action="raise_kl")
    pairs = [(0, 5.0)] * 2 + [(1, 3.0)] * 6 + [(1, 4.5)] * 4
    rings = [alarm is not None for alarm, _ in observe(one, pairs)]
    # The first window of 5 and 3 is within the luck; from then on each new window of two rings.
    assert [update for update, rang in enumerate(rings) if rang] == [3, 5, 7]


def test_they_end_when_the_optimised_score_has_fallen_too():
    one = guard(action="raise_kl")
    rings = [alarm is not None for alarm, _ in observe(one, [(1, 5.0)] * 2 + [(2, 3.0)] * 2)]
    assert rings == [False, False, False, True]
    assert all(alarm is None for alarm, _ in observe(one, [(0, 3.0)] * 6, start=4))


def test_the_kl_rings_when_it_crosses_the_ceiling_and_not_while_it_stays_above():
    one = guard()
    rings = [one.observe_kl(update, kl) for update, kl in enumerate([9, 11, 12, 8, 13])]
    assert [alarm is not None for alarm in rings] == [False, True, False, False, True]
    assert rings[1].reason == "the KL of 11.0 nats a reply exceeds 10"


def test_a_kl_that_is_no_number_rings():
    one = guard()
    assert "nan" in one.observe_kl(3, math.nan).reason


def test_where_alarms_raise_the_kl_coefficient_they_repeat_while_the_kl_stays_above():
    one = guard(action="raise_kl", window=3)
    rings = [one.observe_kl(update, kl) for update, kl in enumerate([11] * 7 + [9, 11])]
    assert [update for update, alarm in enumerate(rings) if alarm] == [0, 2, 5, 8]


def test_its_state_survives_json():
    one, other = guard(), guard()
    observe(one, [(0, 5.0), (0, 5.0), (1, 3.0), (2, 3.0), (2, 4.0), (2, 4.0)])
    one.observe_kl(5, 99.0)
    other.load_state(json.loads(json.dumps(one.state())))
    assert other == one
