"""The verdict says what the figures say, and does not praise what they do not show."""

from collections.abc import Callable
from dataclasses import replace

from stages.evaluate.comparison import Measurements, compare
from stages.evaluate.verdict import judge, percent, summarise

Make = Callable[..., Measurements]


def _texts(measured: Measurements) -> dict[str, list[str]]:
    figures = compare(measured, num_bootstrap_samples=300, seed=0)
    texts: dict[str, list[str]] = {"good": [], "warning": [], "bad": []}
    for finding in judge(figures):
        texts[finding.level].append(finding.text)
    texts["summary"] = [summarise(figures)]
    return texts


def _with_policy(measured: Measurements, **changes: object) -> Measurements:
    policy = replace(measured.replies["policy"], **changes)  # type: ignore[arg-type]
    return replace(measured, replies=measured.replies | {"policy": policy})


def test_real_gain_is_called_real(make_measurements: Make) -> None:
    texts = _texts(make_measurements())
    assert texts["summary"] == ["PPO made the replies better than the SFT model's. "
                                "Nothing looks wrong."]  # fmt: skip
    assert any("The gain is real" in text for text in texts["good"])


def test_proxy_gain_without_true_gain_is_over_optimisation(make_measurements: Make) -> None:
    measured = make_measurements()
    sft, policy = measured.replies["sft"], measured.replies["policy"]
    for moved, by in (("does not follow", 0.0), ("falls", -1.0)):
        oracle = [score + by for score in sft.scores["oracle"]]
        hacked = _with_policy(measured, scores=policy.scores | {"oracle": oracle})
        texts = _texts(hacked)
        assert any("Over-optimisation" in text and moved in text for text in texts["bad"])
        assert not any("The gain is real" in text for text in texts["good"])


def test_reward_model_that_learned_length_is_called_so(make_measurements: Make) -> None:
    measured = make_measurements()
    assert measured.pairs is not None
    lengths = {"chosen_length": [2] * 100, "rejected_length": [1] * 100}
    texts = _texts(replace(measured, pairs=replace(measured.pairs, **lengths)))
    assert any("counting characters" in text for text in texts["bad"])


def test_random_reward_model_is_called_a_coin(make_measurements: Make) -> None:
    measured = make_measurements()
    assert measured.pairs is not None
    pairs = replace(measured.pairs, rejected=measured.pairs.chosen[::-1])
    assert any("coin" in text for text in _texts(replace(measured, pairs=pairs))["bad"])


def test_odd_replies_are_flagged(make_measurements: Make) -> None:
    measured = make_measurements()
    policy = measured.replies["policy"]
    changes = {
        "lengths": [3 * length for length in policy.lengths],
        "ended": [False] * 20 + [True] * 20,
        "kl": [60.0] * 40,
        "texts": ["again and again and again"] * 40,
    }
    texts = " ".join(_texts(_with_policy(measured, **changes))["warning"])
    assert "Replies grew" in texts
    assert "cut off" in texts
    assert "far from the SFT model" in texts


def test_without_independent_scorer_nothing_is_claimed(make_measurements: Make) -> None:
    measured = make_measurements()
    for replies in measured.replies.values():
        del replies.scores["oracle"]
    texts = _texts(replace(measured, scorers=()))
    assert any("Only the reward model judged" in text for text in texts["warning"])
    assert "no independent scorer" in texts["summary"][0]


def test_percent_does_not_round_to_certainty() -> None:
    assert [percent(share) for share in (0.0, 0.004, 0.834, 0.996, 0.9999, 1.0)] == [
        "0\u00a0%", "0.4\u00a0%", "83\u00a0%", "99.6\u00a0%", "99.9\u00a0%", "100\u00a0%"
    ]  # fmt: skip
