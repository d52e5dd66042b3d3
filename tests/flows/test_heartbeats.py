"""Which events the automation counts, by the server's own rules."""

import datetime
from uuid import uuid4

import pytest
from prefect.events.related import tags_as_related_resources
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.events.schemas.events import ReceivedEvent

from flows import heartbeats
from flows.recovery import OWN_TAG


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
