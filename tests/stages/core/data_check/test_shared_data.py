"""What is found in real files that nobody here wrote. The counts were taken by other means: with
json, collections.Counter and a look at the records named."""

from pathlib import Path

import pytest

from stages.core.data_check import check_files

SHARED = Path(__file__).resolve().parents[4].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is absent")


@pytest.mark.parametrize(
    ("name", "records", "expected"),
    [
        ("sft/dolly_hhrlhf_train_small", 1000,
         {"mojibake": 1, "same-prompt": 1, "over-long": 1, "reply-cut": 1}),
        ("sft/gsm8k_train", 7473, {}),
        ("sft/t0_p3_6k", 6000,
         {"special-token-end": 6000, "evaluation-template": 3165, "duplicate": 5,
          "same-prompt": 422}),
        ("preferences/hh_harmless_80", 1846, {"turns-not-alternating": 3}),
        ("preferences/hh_harmless_raw_200", 200, {"empty": 1}),
        ("preferences/oasst1_human", 754, {"length-bias": 526}),
        ("preferences/qa_feedback_human", 2616, {}),
        ("preferences/ultrafeedback_train", 994, {"special-token": 4, "mojibake": 2}),
    ],
)  # fmt: skip
def test_true_findings(name, records, expected):
    report = check_files([SHARED / f"{name}.jsonl.gz"], context=2048)
    assert {finding.code: finding.count for finding in report.findings} == expected
    assert report.records == records
    assert report.exit_code == bool(set(expected) - {"same-prompt"})


def test_the_evaluation_templates_of_t0():
    report = check_files([SHARED / "sft/t0_p3_6k.jsonl.gz"])
    (named,) = (item for item in report.findings if item.code == "evaluation-template")
    assert "commonsense_qa 290×" in named.detail
    assert "cosmos_qa 270×" in named.detail


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("sft/t0_p3_6k", []),
        ("sft/gsm8k_train", []),
        ("sft/dolly_hhrlhf_train_small", [357, 382, 390]),
        ("preferences/ultrafeedback_train", [648, 909]),
    ],
)
def test_the_overlap_with_boolq(name, lines):
    """A look at all 13-grams as Python tuples found the same records."""
    evaluation = SHARED / "eval/super_glue/boolq/validation.jsonl.gz"
    report = check_files([SHARED / f"{name}.jsonl.gz"], evaluation=[evaluation])
    places = [
        example.place
        for finding in report.findings
        if finding.code == "evaluation-overlap"
        for example in finding.examples
    ]
    assert places == [f"{Path(name).name}.jsonl.gz:{line}" for line in lines]
