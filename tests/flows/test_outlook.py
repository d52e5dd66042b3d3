"""What a real Prefect server is about to run."""

import datetime
import os

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.schedules import Cron, Schedule
from prefect.settings import PREFECT_API_URL

from flows import heartbeats, outlook
from flows.deployments import make_pools
from flows.environment import OWN_TAG
from stages.core.errors import UserError


@flow(name="nightly", persist_result=False)
def nightly() -> None:
    """A flow to schedule."""


def _deploy(name: str, schedule: Schedule | None = None) -> object:
    schedules = [schedule] if schedule else []
    deployment = nightly.to_deployment(
        name=name, tags=[OWN_TAG], schedules=schedules, work_pool_name="cpu"
    )
    return deployment.apply()


@pytest.mark.slow
def test_next_runs_come_with_schedule_and_time_zone(prefect_server: None) -> None:
    make_pools()
    on = _deploy("on", Cron("0 4 * * 0", timezone="Europe/Berlin"))
    _deploy("off", Cron("0 5 * * 0", timezone="UTC", active=False))
    by_hand = _deploy("by-hand")
    heartbeats.watch_heartbeats()
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(by_hand, parameters={})
        client.request("POST", "/deployments/{id}/schedule", path_params={"id": on}, json={})
    found = outlook.outlook(PREFECT_API_URL.value())
    waiting, scheduled = (run for run in found.next_runs if run.deployment.startswith("nightly/"))
    assert (waiting.deployment, waiting.schedule) == ("nightly/by-hand", "")
    assert (scheduled.deployment, scheduled.schedule) == ("nightly/on", "0 4 * * 0 Europe/Berlin")
    assert scheduled.due > datetime.datetime.now(datetime.UTC)
    assert scheduled.due.astimezone(datetime.UTC).hour in (2, 3)
    assert "nightly/off" in found.paused
    assert found.automations[heartbeats.AUTOMATION] is True


def test_a_server_that_is_away_is_one_line() -> None:
    with pytest.raises(UserError, match="127.0.0.1:1/api does not answer; start it"):
        outlook.outlook("http://me:secret@127.0.0.1:1/api")


def test_without_a_server_there_is_no_api(data_root: object) -> None:
    assert outlook.prefect_api() == ""
    os.environ["PREFECT_API_URL"] = "http://far/api/"
    assert outlook.prefect_api() == "http://far/api"
