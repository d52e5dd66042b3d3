"""Pairs, and what people and models say about them."""

from datetime import UTC, datetime

import pytest

from stages.core.config import ReviewQueueConfig
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id
from stages.core.tracking.client import PatientClient, experiment_id


@pytest.fixture
def make_pairs():
    """A function: so many pairs, from a number on."""

    def make(count, start=0, **fields):
        return [
            CandidatePair(
                pair_id=pair_id(f"Question {number}?", f"Reply {number}.", "Another."),
                prompt=f"Question {number}?",
                reply_a=f"Reply {number}.",
                reply_b="Another.",
                **{"model_a": "champion", "model_b": "sft", "margin": 0.5} | fields,
            )
            for number in range(start, start + count)
        ]

    return make


@pytest.fixture
def config(request):
    """Settings of a queue in an experiment named as the test."""
    return ReviewQueueConfig(experiment=request.node.name, name="round 1")


@pytest.fixture
def run_id(client):
    """A run for the pairs' file, in an experiment that reviewers do not see."""
    return client.create_run(experiment_id(PatientClient(), "pipelines")).info.run_id


@pytest.fixture
def judged():
    """A function: a judgment about a pair."""

    def make(pair, verdict="a", annotator="anna", **fields):
        usual = {"annotator_kind": "human", "created_at": datetime(2026, 11, 2, 8, tzinfo=UTC)}
        return Judgment(
            judgment_id="",
            trace_id="",
            queue="",
            pair=pair,
            verdict=verdict,
            annotator=annotator,
            **usual | fields,
        )

    return make
