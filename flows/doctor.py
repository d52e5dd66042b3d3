"""``rlhf doctor``: what would stop a run on this machine, a line each, with its cure."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from rich.console import Console

from flows import access, checks, server_checks, servers
from flows.checks import BAD, Finding
from flows.environment import prefect_folder

Check = Callable[[], Finding]
STYLES = {checks.GOOD: "green", checks.BAD: "bold red", checks.NOTE: "dim"}
PROCESSES_AT_ONCE = 2
WIDTH = len("Prefect server")


def doctor(console: Console) -> int:
    """Make all checks and print what they find.

    Returns:
        0 where all is well, 2 where something must be mended.
    """
    findings = []
    with ThreadPoolExecutor(PROCESSES_AT_ONCE) as pool:
        slow = [pool.submit(check) for check in _slow()]
        for check in _quick():
            findings.append(check())
            _show(console, findings[-1])
        for future in slow:
            findings.append(future.result())
            _show(console, findings[-1])
    bad = sum(finding.mark == BAD for finding in findings)
    console.print(f"{bad} to mend." if bad else "All is well.")
    return 2 if bad else 0


def _slow() -> list[Check]:
    """The checks that start a process."""
    return [checks.lora, checks.prefect_server, checks.mlflow, checks.gpu]


def _quick() -> list[Check]:
    found: list[Check] = [
        checks.python_version,
        checks.packages,
        checks.data_folder,
        checks.open_files,
        checks.time_zone,
        server_checks.passwords,
        server_checks.leftovers,
    ]
    api_url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if api_url:
        found.append(partial(server_checks.server, "Prefect", api_url))
    else:
        default = f"sqlite+aiosqlite:///{prefect_folder() / 'prefect.db'}"
        url = os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL") or default
        found.append(partial(server_checks.port, "Prefect", servers.PREFECT_PORT))
        found.append(partial(server_checks.database, "Prefect", url))
    tracking = access.server_address(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if tracking:
        found.append(partial(server_checks.server, "MLflow", tracking))
    else:
        found.append(partial(server_checks.port, "MLflow", servers.MLFLOW_PORT))
        found.append(partial(server_checks.database, "MLflow", servers.mlflow_store()))
    return found


def _show(console: Console, finding: Finding) -> None:
    style = STYLES[finding.mark]
    line = f"[{style}]{finding.mark}[/] {finding.subject:<{WIDTH}}  "
    console.print(line, end="", soft_wrap=True)
    console.print(finding.text, markup=False, soft_wrap=True)
    if finding.cure:
        console.print(f"  {'':<{WIDTH}}  → {finding.cure}", markup=False, soft_wrap=True)
