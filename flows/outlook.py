"""What a Prefect server will run next: scheduled runs, and the automations that start or end ours.

Asked over HTTP, since the command line starts without prefect.
"""

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from flows import access, servers
from flows.environment import OWN_TAG
from stages.core.errors import UserError

AUTOMATIONS = "rlhf"
"""How the names of our automations begin."""
MAX_RUNS = 200
TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class NextRun:
    """The run of a deployment that is due next."""

    deployment: str
    due: datetime.datetime
    schedule: str
    """Cron line and time zone; empty: it was triggered, and waits for a worker."""


@dataclass(frozen=True)
class Outlook:
    """What our deployments and automations on a server are about to do."""

    api_url: str
    next_runs: tuple[NextRun, ...]
    """One a deployment, the earliest first."""
    paused: tuple[str, ...]
    """Deployments whose schedules are all switched off, or that are paused."""
    automations: dict[str, bool]
    """By name, whether it is on."""


def prefect_api() -> str:
    """The API of the Prefect server to ask: the user's or that of ``rlhf up``; empty: none runs."""
    if given := os.environ.get("PREFECT_API_URL", "").rstrip("/"):
        return given
    standing = servers.standing_servers()
    return f"{standing.prefect_url}/api" if standing else ""


def outlook(api_url: str) -> Outlook:
    """What the server will do next.

    Raises:
        UserError: it does not answer, asks for a password, or answers something else.
    """
    name = f"the Prefect server at {access.without_password(api_url)}"
    try:
        with access.prefect_client(api_url, TIMEOUT_SECONDS) as client:
            return _outlook(api_url, client)
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        cure = "set PREFECT_API_AUTH_STRING=user:password" if code in (401, 403) else "see its log"
        raise UserError(f"{name} answers {code}; {cure}") from None
    except (httpx.HTTPError, httpx.InvalidURL):
        raise UserError(
            f"{name} does not answer; start it, or correct or unset PREFECT_API_URL"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{name} answers with something else than Prefect's") from None


# ------------------------------------------------------------------------------------ helpers


def _outlook(api_url: str, client: httpx.Client) -> Outlook:
    ours = {"deployments": {"tags": {"all_": [OWN_TAG]}}}
    deployments = {item["id"]: item for item in _ask(client, "/deployments/filter", ours)}
    flows = {item["id"]: item["name"] for item in _ask(client, "/flows/filter", ours)}
    names = {
        number: f"{flows.get(item['flow_id'], '?')}/{item['name']}"
        for number, item in deployments.items()
    }
    scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    order = "EXPECTED_START_TIME_ASC"
    runs = _ask(client, "/flow_runs/filter", ours | {"flow_runs": scheduled, "sort": order})
    next_runs: dict[str, NextRun] = {}
    for run in runs:
        number = run["deployment_id"]
        if number in names and number not in next_runs:
            due = datetime.datetime.fromisoformat(run["expected_start_time"])
            schedule = _cron(deployments[number]) if run["auto_scheduled"] else ""
            next_runs[number] = NextRun(names[number], due, schedule)
    paused = [
        names[number]
        for number, item in deployments.items()
        if item["schedules"] and (item["paused"] or not _active(item))
    ]
    automations = {
        item["name"]: bool(item["enabled"])
        for item in _ask(client, "/automations/filter", {})
        if item["name"].startswith(AUTOMATIONS)
    }
    return Outlook(api_url, tuple(next_runs.values()), tuple(sorted(paused)), automations)


def _ask(client: httpx.Client, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
    answer = client.post(path, json={"limit": MAX_RUNS, **body}).raise_for_status().json()
    if not isinstance(answer, list):
        raise TypeError(path)
    return answer


def _active(deployment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [item for item in deployment["schedules"] if item["active"]]


def _cron(deployment: Mapping[str, Any]) -> str:
    """The active schedules of a deployment, each with its time zone."""
    lines = []
    for item in _active(deployment):
        schedule = item["schedule"]
        line = schedule.get("cron") or schedule.get("rrule") or f"{schedule.get('interval')} s"
        lines.append(f"{line} {schedule.get('timezone') or 'UTC'}")
    return "; ".join(lines)
