"""A flow run in the process of a command, watched in the terminal."""

import contextlib
import importlib
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rich.console import Console

from flows import access, progress, servers
from flows.environment import OWN_TAG

NOWHERE: Mapping[str, str] = MappingProxyType({})


def run_flow(
    console: Console,
    module: str,
    flow: str,
    *arguments: Any,
    places: Mapping[str, str] = NOWHERE,
    **named: Any,
) -> Any:
    """Run a flow with a table of its stages at the end, and return what it returns.

    Args:
        module, flow: where the flow is and what it is called: Prefect is imported only now, when it
            can be told which server to report to.
        places: further lines below the table: what → where.

    Raises:
        UserError: as the flow, or the server to use does not answer or refuses the password.
    """
    with contextlib.ExitStack() as stack:
        api_url = _prefect_api(stack, console)
        called = getattr(importlib.import_module(module), flow)
        pipeline = importlib.import_module("flows.pipeline")
        tags = importlib.import_module("prefect").tags
        reporter = progress.Reporter()
        try:
            with progress.reporting(console) as reporter, tags(OWN_TAG):
                return called(*arguments, **named)
        finally:
            # The server may be stopped next, and the run's last states must outlive it.
            pipeline.send_pending_records()
            if reporter.flow_run_id:
                num_runs = len(reporter.rows)
                servers.wait_until_recorded(api_url, reporter.flow_run_id, num_runs)
            reporter.places |= {**places, "both UIs": "make up"}
            progress.print_summary(console, reporter)


def standing() -> servers.Standing | None:
    """The servers of ``rlhf up``, if it runs; what this command does is tracked where they say."""
    found = servers.standing_servers()
    if found and found.tracking_uri and not os.environ.get("MLFLOW_TRACKING_URI"):
        os.environ["MLFLOW_TRACKING_URI"] = found.tracking_uri
    return found


# ------------------------------------------------------------------------------------ helpers


def _prefect_api(stack: contextlib.ExitStack, console: Console) -> str:
    """The API to report to: the user's, that of ``rlhf up``, or a server for this run only.

    Raises:
        UserError: the Prefect or MLflow server to use does not answer, or refuses the password.
    """
    given = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        stack.callback(os.environ.pop, "MLFLOW_TRACKING_URI", None)
    there = standing()
    if tracking := access.server_address(os.environ.get("MLFLOW_TRACKING_URI", "")):
        access.check_mlflow(tracking)
    if given:
        access.check_prefect(given)
        return given
    url = there.prefect_url if there else ""
    if there is not None:
        access.check_prefect(f"{url}/api")
    else:
        server = stack.enter_context(servers.stopped_at_exit(servers.start_prefect()))
        url = server.url
    # Prefect reads the address when it is imported, and starts one more server when it has none.
    os.environ["PREFECT_API_URL"] = f"{url}/api"
    stack.callback(os.environ.pop, "PREFECT_API_URL", None)
    if there is None:
        importlib.import_module("flows.pipeline")  # takes as long as the server's start
        servers.wait_until_healthy(server)
    console.print(f"Watch it at {url} while it runs.")
    return f"{url}/api"
