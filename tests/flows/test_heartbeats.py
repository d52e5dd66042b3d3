"""Which events the automation counts, by the server's own rules."""

import datetime
from uuid import uuid4

import pytest
from prefect.events.related import tags_as_related_resources
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent

from flows import heartbeats
from flows.environment import OWN_TAG


@pytest.mark.parametrize(
    ("tags", "is_watched"), [(["nightly", OWN_TAG], True), (["nightly"], False), ([], False)]
)
@pytest.mark.parametrize("event", ["heartbeat", "Completed", "Suspended"])
def test_it_watches_our_runs_only(tags: list[str], is_watched: bool, event: str) -> None:
    stored = heartbeats.automation().trigger.model_dump(mode="json")
    happened = ReceivedEvent.model_validate(
        {
            "id": uuid4(),
            "occurred": datetime.datetime.now(datetime.UTC),
            "event": f"prefect.flow-run.{event}",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{uuid4()}"},
            "related": [tag.model_dump() for tag in tags_as_related_resources(tags)],
        }
    )
    assert EventTrigger.model_validate(stored).covers(happened) is is_watched


def test_a_run_that_waits_for_an_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(
        heartbeats,
        "emit_event",
        lambda event, resource, related: said.append((event, resource, related)),
    )
    monkeypatch.setattr(heartbeats.prefect.runtime.flow_run, "id", "some-id", raising=False)
    heartbeats.say_suspended()
    ((event, resource, related),) = said
    now = datetime.datetime.now(datetime.UTC)
    named = {"id": uuid4(), "occurred": now, "event": event}
    happened = ReceivedEvent.model_validate({**named, "resource": resource, "related": related})
    stored = heartbeats.automation().trigger.model_dump(mode="json")
    trigger = EventTrigger.model_validate(stored)
    assert trigger.covers(happened)
    assert trigger.expects(event)
    assert not trigger.starts_after(event)
    assert resource == {"prefect.resource.id": "prefect.flow-run.some-id"}
