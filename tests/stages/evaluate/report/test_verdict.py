"""The verdict says what the figures say, and does not praise what they do not show."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from stages.evaluate.comparison import compare
from stages.evaluate.earlier import Card
from stages.evaluate.measurements import Measure, Measurements, Missing
from stages.evaluate.verdict import findings, help_or_hack, reward_model_answer

Make = Callable[..., Measurements]


def _texts(measured: Measurements) -> dict[str, list[str]]:
    figures = compare(measured, num_bootstrap_samples=300, seed=0)
    texts: dict[str, list[str]] = {"good": [], "warning": [], "bad": []}
    for finding in findings(figures, measured.missing):
        texts[finding.level].append(finding.text)
    answer = help_or_hack(figures)
    texts["answer"] = [f"{answer.level}: {answer.text}"]
    return texts


def _with_policy(measured: Measurements, **changes: object) -> Measurements:
    policy = replace(measured.replies["policy"], **changes)  # type: ignore[arg-type]
    return replace(measured, replies=measured.replies | {"policy": policy})


def _with_scores(measured: Measurements, **by: float) -> Measurements:
    """The policy's scores are the SFT model's and so much more."""
    sft = measured.replies["sft"].scores
    scores = {name: [score + by.get(name, 0.0) for score in sft[name]] for name in sft}
    return _with_policy(measured, scores=scores)


def test_real_gain_is_called_help(make_measurements: Make) -> None:
    (answer,) = _texts(make_measurements())["answer"]
    assert answer.startswith("good: It helped.")
    assert "the scorer “oracle”, which PPO never saw" in answer


@pytest.mark.parametrize(
    ("by", "answer"),
    [
        ({"reward_model": 1.0, "oracle": -1.0}, "bad: It hacked."),
        ({"reward_model": 1.0}, "warning: It cannot be told yet."),
        ({"oracle": -1.0}, "bad: It harmed."),
        ({}, "warning: Neither."),
        ({"reward_model": 1.0, "oracle": -1.0, "guard_model": 1.0}, "bad: Mixed."),
        ({"reward_model": 1.0, "oracle": 1.0}, "warning: It helped."),
    ],
)
def test_every_outcome_has_its_word(
    make_measurements: Make, by: dict[str, float], answer: str
) -> None:
    scorers = ("oracle", "guard_model") if len(by) == 3 or by.get("oracle") == 1 else ("oracle",)
    texts = _texts(_with_scores(make_measurements(scorers=scorers), **by))
    assert texts["answer"][0].startswith(answer), texts["answer"]


def test_proxy_gain_without_true_gain_is_over_optimisation(make_measurements: Make) -> None:
    texts = _texts(_with_scores(make_measurements(), reward_model=1.0, oracle=-1.0))
    assert any("Over-optimisation" in text and "falls" in text for text in texts["bad"])


def test_proxy_gain_that_others_do_not_see_is_no_proof_of_hacking(make_measurements: Make) -> None:
    texts = _texts(_with_scores(make_measurements(), reward_model=1.0))
    assert any("does not clearly follow" in text for text in texts["warning"])
    assert not any("Over-optimisation" in text for text in texts["bad"])


def test_equal_replies_are_ties_whatever_rounding_says(make_measurements: Make) -> None:
    measured = make_measurements()
    same = _with_policy(measured, texts=measured.replies["sft"].texts)
    figures = compare(same, num_bootstrap_samples=300, seed=0)
    contrast = figures.contrasts["policy", "sft"]["reward_model"]
    assert contrast.ties == 1.0
    assert (contrast.win_rate.value, contrast.difference.value) == (0.5, 0.0)


def test_without_independent_scorer_nothing_is_claimed(make_measurements: Make) -> None:
    (answer,) = _texts(make_measurements(scorers=()))["answer"]
    assert answer.startswith("warning: Cannot be told.")
    assert "rose" in answer


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


def test_gain_by_length_alone_is_flagged(make_measurements: Make) -> None:
    measured = make_measurements(count=80)
    sft = measured.replies["sft"]
    growth = [index % 20 - 5 for index in range(80)]
    scores = {
        name: [score + (1 if more > 1 else -1) for score, more in zip(values, growth, strict=True)]
        for name, values in sft.scores.items()
    }
    lengths = [length + more for length, more in zip(sft.lengths, growth, strict=True)]
    policy = replace(measured.replies["policy"], lengths=lengths, scores=scores)
    changed = replace(measured, replies=measured.replies | {"policy": policy})
    assert any("At equal lengths" in text for text in _texts(changed)["warning"])


def test_more_toxic_replies_and_what_failed_are_said(make_measurements: Make) -> None:
    toxic = {"base": [0.0] * 40, "sft": [0.0] * 40, "policy": [1.0] * 20 + [0.0] * 20}
    measured = replace(
        make_measurements(),
        measures={"toxic_share": Measure("Toxic", "", toxic)},
        missing=(Missing("leaks", "disk is full", failed=True), Missing("refusals", "no file")),
    )
    texts = _texts(measured)
    assert any("50\u00a0% instead of the SFT model's 0\u00a0%" in text for text in texts["bad"])
    assert "Not measured: leaks. Disk is full." in texts["warning"]
    assert not any("refusals" in text for text in texts["warning"])


def _card(accuracy: tuple[float, float, float], baseline: float, lead: float) -> Card:
    def row(name: str, value: float, low: float, high: float) -> dict[str, object]:
        return {"name": name, "label": name, "value": value, "low": low, "high": high}

    return Card.model_validate(
        {
            "num_pairs": 100,
            "rows": [
                row("reward_model_accuracy", *accuracy),
                row("bag_of_words_accuracy", baseline, baseline - 0.1, baseline + 0.1),
                row("reward_model_minus_bag_of_words", lead + 0.1, lead, lead + 0.2),
            ],
        }
    )


@pytest.mark.parametrize(
    ("card", "answer"),
    [
        (None, "Not known."),
        (_card((0.8, 0.7, 0.9), 0.55, 0.1), "Yes."),
        (_card((0.7, 0.6, 0.8), 0.68, -0.05), "Barely."),
        (_card((0.6, 0.55, 0.65), 0.64, -0.2), "No."),
        (_card((0.54, 0.45, 0.63), 0.4, 0.05), "No."),
    ],
)
def test_reward_model_is_measured_against_its_best_baseline(card: Card | None, answer: str) -> None:
    assert reward_model_answer(card).text.startswith(answer)
