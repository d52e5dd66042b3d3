"""When enough has been judged: what is announced, how often, and that it starts a retraining."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter

from flows import deployments, feedback_watch
from flows.feedback_watch import AUTOMATION, begin_watching, watch_feedback
from stages.core import tracking
from stages.core.config import PipelineConfig
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server", "data_root")]

EARLY = datetime(2026, 11, 2, 8, tzinfo=UTC)


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Callable[..., str]:
    """A function that records so many judgments, from a number on; returns the experiment."""
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="pairs"), "pairs")
    experiment = f"{request.node.name} {run_id[:4]}"

    def record(count: int, start: int = 0, kind: str = "human", at: datetime = EARLY) -> str:
        rows = [
            Judgment.model_validate(
                {
                    "judgment_id": "", "trace_id": "", "queue": "", "verdict": "a",
                    "annotator": "anna", "annotator_kind": kind,
                    "created_at": at + timedelta(minutes=number), "pair": _pair(number),
                }
            )
            for number in range(start, start + count)
        ]  # fmt: skip
        tracking.record_judgments(experiment, rows, run_id)
        return experiment

    return record


def _pair(number: int) -> CandidatePair:
    prompt, replies = f"Question {number}?", (f"Reply {number}.", "Another.")
    number_of = pair_id(prompt, *replies)
    return CandidatePair(pair_id=number_of, prompt=prompt, reply_a=replies[0], reply_b=replies[1])


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The payloads of what is announced."""
    said: list[dict[str, Any]] = []

    def emit(event: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
        assert event == feedback_watch.READY
        said.append(payload)

    monkeypatch.setattr(feedback_watch, "emit_event", emit)
    return said


def _state(experiment: str, minimum: int) -> Any:
    return watch_feedback(experiment, min_new_judgments=minimum, return_state=True)


def test_it_announces_once_and_again_with_as_many_more(
    judge: Callable[..., str], events: list[dict[str, Any]]
) -> None:
    experiment = judge(3)
    judge(2, start=3, kind="ai")  # a model's do not count
    state = _state(experiment, 4)
    assert state.name == "Nothing new"
    assert f"3 new judgments of {experiment!r}, in all" in state.message
    assert "Announced at 4" in state.message
    judge(2, start=5)
    assert [_state(experiment, 4).name for _ in range(2)] == ["Announced", "Announced already"]
    judge(3, start=7)
    assert _state(experiment, 4).name == "Announced already"
    judge(1, start=10)
    assert _state(experiment, 4).name == "Announced"
    assert events == [{"experiment": experiment, "new": n} for n in (5, 9)]


def test_after_a_day_it_announces_again_what_nothing_has_learned_from(
    judge: Callable[..., str], events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = judge(2)
    assert [_state(experiment, 2).name for _ in range(2)] == ["Announced", "Announced already"]
    monkeypatch.setattr(feedback_watch, "AGAIN_AFTER", timedelta(0))
    assert _state(experiment, 2).name == "Announced"
    assert len(events) == 2


def test_an_experiment_that_nobody_has_made_is_nothing_new(events: list[dict[str, Any]]) -> None:
    state = _state("nobody made this", 1)
    assert state.name == "Nothing new"
    assert "0 new judgments" in state.message
    assert "rlhf feedback ask" in state.message
    assert events == []


@flow(name="retrain-stand-in")
def stand_in() -> None:
    """What the automation starts in the test."""


@pytest.fixture
def deployed() -> str:
    """A deployment that no worker serves: its runs wait."""
    deployments.make_pools()
    made = deployments._deployment(stand_in, "watched", "", "cpu")
    made.apply()
    return made.full_name


def test_the_event_starts_a_run_of_the_deployment(judge: Callable[..., str], deployed: str) -> None:
    feedback_watch.retrain_on_new_judgments(deployed, instead=True)
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(deployed)
        wanted = FlowRunFilter.model_validate({"deployment_id": {"any_": [deployment.id]}})
        assert client.read_flow_runs(flow_run_filter=wanted) == []
        time.sleep(5)  # the server's triggers learn of an automation in the background
        assert _state(judge(2), 2).name == "Announced"
        deadline = time.monotonic() + 60
        while not (runs := client.read_flow_runs(flow_run_filter=wanted)):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert len(runs) == 1


def test_the_automation_is_left_as_it_is_but_not_without_its_deployment(deployed: str) -> None:
    feedback_watch.retrain_on_new_judgments(deployed, instead=True)
    own = deployments._deployment(stand_in, "own", "", "cpu")
    own.apply()
    with get_client(sync_client=True) as client:

        def runs() -> UUID:
            (found,) = client.read_automations_by_name(AUTOMATION)
            return found.actions[0].deployment_id

        first = client.read_deployment_by_name(deployed).id
        other = client.read_deployment_by_name(own.full_name).id
        feedback_watch.retrain_on_new_judgments(own.full_name, instead=False)
        assert runs() == first
        client.delete_deployment(first)
        feedback_watch.retrain_on_new_judgments(own.full_name, instead=False)
        assert runs() == other


def test_the_first_queue_switches_the_schedule_on_and_no_later_one_does(
    judge: Callable[..., str],
) -> None:
    experiment = judge(1)
    deployments.make_pools()
    watch = next(d for d in deployments.deployments() if d.full_name == feedback_watch.DEPLOYMENT)
    with get_client(sync_client=True) as client:
        watch.apply()

        def is_on() -> bool:
            found = client.read_deployment_by_name(feedback_watch.DEPLOYMENT)
            return any(schedule.active for schedule in found.schedules)

        assert not is_on()
        assert begin_watching(experiment)
        assert is_on()
        found = client.read_deployment_by_name(feedback_watch.DEPLOYMENT)
        client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)
        assert not begin_watching(experiment)
        assert not is_on()
