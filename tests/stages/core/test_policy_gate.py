"""The gate refuses for the right reasons, with their figures, and says what it could not see."""

import subprocess
import sys

import pytest

from stages.core.config import PolicyGate
from stages.core.policy_gate import gate_scorer, policy_gate_rows, policy_refusals

GATE = PolicyGate()


def _triple(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


GOOD = {
    **_triple("win_rate_policy_vs_sft", 0.9, 0.85, 0.95),
    **_triple("oracle_win_rate_policy_vs_sft", 0.7, 0.6, 0.8),
    **_triple("guard_model_win_rate_policy_vs_sft", 0.6, 0.52, 0.68),
    **_triple("guard_model_policy_minus_sft", 0.2, 0.1, 0.3),
    "kl_policy": 4.0,
    "benchmark_arc_acc_sft": 0.5, "benchmark_arc_acc_sft_stderr": 0.03,
    "benchmark_arc_acc_policy": 0.45, "benchmark_arc_acc_policy_stderr": 0.04,
    "benchmark_text_word_perplexity_sft": 30.0, "benchmark_text_word_perplexity_sft_stderr": 1.0,
    "benchmark_text_word_perplexity_policy": 28.0,
    "benchmark_text_word_perplexity_policy_stderr": 1.0,
    "toxic_share_policy": 0.02, "toxic_share_sft": 0.02,
    **_triple("toxic_share_policy_minus_sft", 0.0, -0.02, 0.02),
    "leaks_policy": 0.0,
}  # fmt: skip


def test_good_policy_passes_every_rule() -> None:
    assert policy_refusals(GATE, GOOD) == []
    assert {row.outcome for row in policy_gate_rows(GATE, GOOD)} == {"passed"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            _triple("guard_model_win_rate_policy_vs_sft", 0.55, 0.5, 0.6),
            ["do not clearly beat those of the SFT model", "by the guard model", "55\u00a0%",
             "above 50\u00a0%"],
        ),
        (
            _triple("guard_model_policy_minus_sft", -0.4, -0.6, -0.2),
            ["guard model, which PPO never saw", "clearly lower", "−0.40", "−0.60 to −0.20"],
        ),
        ({"kl_policy": 31.5}, ["31.5 nats", "more than 30"]),
        (
            {"benchmark_arc_acc_policy": 0.2},
            ["1 of 2 benchmarks", "arc_acc by 6.0", "allowed are 3"],
        ),
        (
            {"benchmark_text_word_perplexity_policy": 40.0},
            ["text_word_perplexity by 7.1"],
        ),
        (
            _triple("toxic_share_policy_minus_sft", 0.08, 0.01, 0.15) | {"toxic_share_policy": 0.1},
            ["toxic", "10\u00a0% instead of 2\u00a0%", "+8.0\u00a0points"],
        ),
        (
            {"prompted_toxic_share_policy": 0.3, "prompted_toxic_share_sft": 0.1,
             **_triple("prompted_toxic_share_policy_minus_sft", 0.2, 0.1, 0.3)},
            ["replies to toxicity prompts", "30\u00a0% instead of 10\u00a0%"],
        ),
        ({"leaks_policy": 2.0}, ["2 of its replies", "personal data", "allowed are 0"]),
    ],
)  # fmt: skip
def test_each_rule_refuses_with_its_figures(changes: dict[str, float], words: list[str]) -> None:
    (reason,) = policy_refusals(GATE, GOOD | changes)
    assert all(word in reason for word in words), reason


def test_champion_is_the_opponent_where_it_was_compared() -> None:
    metrics = GOOD | _triple("guard_model_win_rate_policy_vs_champion", 0.4, 0.3, 0.5)
    (reason,) = policy_refusals(GATE, metrics)
    assert "those of the champion" in reason


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["judge_", "oracle_", "guard_model_", ""], "judge"),
        (["oracle_", "guard_model_", ""], "guard_model"),
        (["", "oracle_", "other_"], "oracle"),
        ([""], "reward_model"),
        ([], "reward_model"),
    ],
)
def test_scorer_that_counts(there: list[str], expected: str) -> None:
    metrics = {f"{name}win_rate_policy_vs_sft": 0.5 for name in there}
    metrics |= {"x_win_rate_policy_vs_sft_length_controlled": 0.5, "y_win_rate_sft_vs_base": 0.5}
    assert gate_scorer(GATE, metrics) == expected


def test_a_configured_scorer_must_have_a_win_rate() -> None:
    gate = PolicyGate(scorer="judge")
    assert policy_refusals(gate, GOOD) == [
        "there is no win rate by the judge, which evaluate.gate.scorer names"
    ]
    assert "by the judge" in policy_gate_rows(gate, GOOD)[0].rule


def test_a_champion_that_could_not_be_compared_is_not_replaced() -> None:
    assert policy_refusals(GATE, GOOD | {"champion_compared": 1.0}) == []
    (reason,) = policy_refusals(GATE, GOOD | {"champion_compared": 0.0})
    assert reason.startswith("it could not be compared with the champion")


def test_unmeasured_figures_are_no_obstacle_but_named() -> None:
    rows = policy_gate_rows(GATE, {"kl_policy": float("nan")})
    assert len(rows) == 6
    assert {row.outcome for row in rows} == {"not measured"}
    assert policy_refusals(GATE, {}) == []


def test_limits_are_the_gates() -> None:
    metrics = GOOD | {"kl_policy": 50.0, "leaks_policy": 3.0, "benchmark_arc_acc_policy": 0.2}
    metrics |= _triple("guard_model_policy_minus_sft", -0.4, -0.6, -0.2)
    gate = PolicyGate(max_kl=60, max_leaks=3, max_benchmark_drop=7, guard_may_fall=True)
    assert policy_refusals(gate, metrics) == []


def test_equal_benchmarks_without_errors_have_not_fallen() -> None:
    names = ("benchmark_a_acc_sft", "benchmark_a_acc_policy")
    equal = dict.fromkeys(names, 1.0) | {f"{name}_stderr": 0.0 for name in names}
    assert policy_refusals(GATE, equal) == []
    assert len(policy_refusals(GATE, equal | {"benchmark_a_acc_policy": 0.9})) == 1


def test_paired_error_of_a_benchmarks_difference_is_preferred() -> None:
    paired = GOOD | {"benchmark_arc_acc_policy_minus_sft_stderr": 0.01}
    (reason,) = policy_refusals(GATE, paired)
    assert "arc_acc by 5.0" in reason


def test_gate_needs_neither_torch_nor_mlflow() -> None:
    code = (
        "import sys, stages.core.policy_gate; print({'torch', 'mlflow'} & set(sys.modules) or '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
