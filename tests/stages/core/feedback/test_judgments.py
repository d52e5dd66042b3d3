"""A judgment as it is kept."""

import datetime

import pytest
from pydantic import ValidationError

from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id

PAIR = CandidatePair(pair_id=pair_id("q", "x", "y"), prompt="q", reply_a="x", reply_b="y")
FACTS = {
    "judgment_id": "a-1",
    "trace_id": "tr-1",
    "queue": "round 1",
    "pair": PAIR,
    "verdict": "both_bad",
    "annotator": "anna",
    "created_at": datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC),
}


def test_a_judgment_survives_json():
    judgment = Judgment.model_validate(FACTS)
    assert Judgment.model_validate_json(judgment.model_dump_json()) == judgment


def test_a_verdict_that_is_none_is_refused():
    with pytest.raises(ValidationError, match="verdict"):
        Judgment.model_validate(FACTS | {"verdict": "A"})
