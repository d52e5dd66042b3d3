"""``rlhf status``: last runs, champion, judgments and what runs next, on one screen."""

import argparse
import contextlib
import datetime
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console

from flows import access, outlook, servers, status_page
from flows.benchmark_command import whole_number
from flows.review_experiment import FEEDBACK
from stages.core.errors import UserError

ALIASES = ("champion", "challenger", "previous")
SERVER_SECONDS = 5
"""How long one answer of an MLflow server may take: somebody waits at the terminal."""


def add_parser(commands: Any) -> None:
    """The options of ``rlhf status``."""
    help_status = "last runs, champion, judgments and what runs next, on one screen"
    command = commands.add_parser("status", help=help_status)
    help_runs = "how many of the last runs (default: %(default)s)"
    command.add_argument("--runs", type=whole_number, default=5, metavar="N", help=help_runs)
    help_experiment = "MLflow experiment that holds the review queues (default: %(default)s)"
    command.add_argument("--experiment", default=FEEDBACK, metavar="NAME", help=help_experiment)
    command.add_argument("--json", action="store_true", help="print one JSON object, no page")


def status(options: argparse.Namespace, console: Console) -> None:
    """Print the page. What cannot be asked is a line of it."""
    facts = read(options.runs, options.experiment)
    if options.json:
        console.file.write(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    else:
        status_page.show(facts, console)


def read(num_runs: int, experiment: str) -> dict[str, Any]:
    """All that the page shows, in JSON's types; a part that cannot be read is None, and why is
    among the ``problems`` (by server). Times are ISO 8601 in UTC."""
    facts: dict[str, Any] = {
        "runs": None,
        "versions": None,
        "judgments": None,
        "next": None,
        "problems": {},
    }
    with _noted(facts["problems"], "MLflow"):
        facts |= _tracked(num_runs, experiment)
    with _noted(facts["problems"], "Prefect"):
        facts["next"] = _next()
    return facts


# ------------------------------------------------------------------------------------ helpers


@contextlib.contextmanager
def _noted(problems: dict[str, str], server: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        problems[server] = " ".join(str(error).split())


def _tracked(num_runs: int, experiment: str) -> dict[str, Any]:
    """What MLflow knows.

    Raises:
        UserError: it does not answer.
    """
    nothing: dict[str, Any] = {"runs": [], "versions": {}, "judgments": None}
    uri = os.environ.get("MLFLOW_TRACKING_URI", "") or servers.mlflow_store()
    if address := access.server_address(uri):
        if not servers.is_healthy(f"{access.without_password(address)}/health"):
            raise UserError(
                f"the MLflow server at {access.without_password(address)} does not answer; start "
                "it, or correct or unset MLFLOW_TRACKING_URI"
            )
        access.check_mlflow(address)
    elif uri.startswith("sqlite") and not Path(urlsplit(uri).path[1:] or ".").is_file():
        return nothing  # to make its tables would take longer than the whole page
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SERVER_SECONDS))
    from stages.core import tracking  # brings mlflow

    with tracking.impatiently():
        versions = tracking.policy_versions()
        return {
            "runs": [_run(line) for line in tracking.last_runs(num_runs)],
            "versions": {
                alias: _version(line)
                for alias in ALIASES
                for line in versions
                if alias in line.aliases
            },
            "judgments": _judgments(experiment),
        }


def _judgments(experiment: str) -> dict[str, Any] | None:
    """What people and models said in this experiment; None where there is none."""
    from flows.lineage import KINDS
    from flows.new_judgments import new_judgments
    from stages.core import tracking

    page = tracking.experiment_page(experiment, "review-queue")
    if not page:
        return None
    new, states = new_judgments(experiment, KINDS), tracking.queue_states(experiment)
    learned = new.last
    address = servers.mlflow_address()
    return {
        "experiment": experiment,
        "page": address + page,
        "page_is_served": _is_served(),
        "total": sum(new.given.values()),
        "human": new.given["human"],
        "ai": new.given["ai"],
        "since": new.count,
        "last_learned": None
        if learned is None
        else {"run": learned.name, "version": learned.version, "until": _iso(learned.until)},
        "pending": sum(state.pending for state in states),
        "queues": [
            {
                "name": state.name,
                "pending": state.pending,
                "finished": state.finished,
                "page": address + state.page,
            }
            for state in sorted(states, key=lambda state: state.name)
        ],
    }


def _is_served() -> bool:
    """Whether anybody serves MLflow's pages; the database is there without."""
    given = access.server_address(os.environ.get("MLFLOW_TRACKING_URI", ""))
    return bool(given) or servers.standing_servers() is not None


def _run(line: Any) -> dict[str, Any]:
    ended = line.ended or datetime.datetime.now(datetime.UTC)
    return {
        "run_id": line.run_id,
        "name": line.name,
        "experiment": line.experiment,
        "state": line.state,
        "started": _iso(line.started),
        "seconds": round((ended - line.started).total_seconds(), 1),
        "policy_version": line.tags.get("policy_version", ""),
        "gate": line.tags.get("policy_gate") or line.tags.get("reward_model_gate", ""),
        "figures": status_page.main_figures(line.metrics),
    }


def _version(line: Any) -> dict[str, Any]:
    return {
        "number": line.number,
        "created": _iso(line.created),
        "gate": line.tags.get("gate", ""),
        "run_id": line.tags.get("parent_run", ""),
        "figures": status_page.main_figures(_numbers(line.tags)),
    }


def _numbers(tags: Mapping[str, str]) -> dict[str, float]:
    """The tags that are figures."""
    found = {}
    for name, value in tags.items():
        with contextlib.suppress(ValueError):
            found[name] = float(value)
    return found


def _next() -> dict[str, Any] | None:
    """What the Prefect server will do; None where none runs.

    Raises:
        UserError: it does not answer.
    """
    api_url = outlook.prefect_api()
    if not api_url:
        return None
    found = asdict(outlook.outlook(api_url))
    found["api_url"] = access.without_password(api_url)
    found["next_runs"] = [run | {"due": _iso(run["due"])} for run in found["next_runs"]]
    return found


def _iso(time: datetime.datetime) -> str:
    return time.astimezone(datetime.UTC).isoformat(timespec="seconds")
