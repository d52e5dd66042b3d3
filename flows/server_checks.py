"""What ``rlhf doctor`` looks at around the servers: ports, databases, passwords, remains."""

import contextlib
import re
import socket
import sqlite3
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from flows import access, servers, supervisor
from flows.checks import BAD, GOOD, NOTE, Finding, last_line, run_python
from flows.environment import prefect_folder
from stages.core.errors import UserError

MAX_CLOCK_SECONDS = 30.0
QUICK_CHECK_SECONDS = 10.0

ASK_DATABASE = """
import asyncio, os
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
url = make_url(os.environ["DOCTOR_DATABASE"])
async def ask():
    async with create_async_engine(url).connect() as connection:
        await connection.execute(text("select 1"))
if url.get_dialect().is_async:
    asyncio.run(asyncio.wait_for(ask(), 10))
else:
    with create_engine(url).connect() as connection:
        connection.execute(text("select 1"))
"""


def port(name: str, number: int) -> Finding:
    """Whether the server's port is free, or taken by our own server."""
    subject = f"Port {number}"
    standing = servers.standing_servers()
    if standing and f":{number}" in (standing.prefect_url + standing.mlflow_url):
        return Finding(GOOD, subject, f"rlhf up serves {name} there")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((servers.HOST, number))
        except OSError:
            option = f"rlhf up --{name.lower()}-port chooses another"
            return Finding(NOTE, subject, f"in use by another program; {option}")
    return Finding(GOOD, subject, f"free for {name}")


def database(name: str, url: str) -> Finding:
    """Whether the database of a server is sound: an SQLite file, or one that answers."""
    subject = f"{name} data"
    path = re.fullmatch(r"sqlite(?:\+\w+)?:///(.+?)(?:\?.*)?", url)
    if path:
        return _sqlite(subject, Path(path.group(1)))
    done = run_python("-c", ASK_DATABASE, DOCTOR_DATABASE=url)
    if done.returncode == 0:
        return Finding(GOOD, subject, f"{url.split(':')[0]} answers")
    cure = "correct the address, the password or the driver that the address names"
    return Finding(BAD, subject, f"{url.split(':')[0]}: {last_line(done.stderr)}", cure)


def _sqlite(subject: str, path: Path) -> Finding:
    try:
        if not path.exists():
            return Finding(NOTE, subject, f"{path.name} is not made yet")
    except PermissionError as error:
        return _closed(subject, path, error)
    deadline = time.monotonic() + QUICK_CHECK_SECONDS
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
            (journal,) = connection.execute("pragma journal_mode").fetchone()
            (state,) = connection.execute("pragma quick_check(1)").fetchone()
    except sqlite3.Error as error:
        if time.monotonic() > deadline:
            return Finding(NOTE, subject, f"{path.name} is too large for a quick look")
        state, journal = str(error), ""
    if state == "ok":
        size = path.stat().st_size / 2**20
        return Finding(GOOD, subject, f"{path.name} is sound ({size:.0f} MiB, journal {journal})")
    cure = f"restore it from a backup, or move it away to begin with an empty one: {path}"
    return Finding(BAD, subject, f"{path.name}: {state}", cure)


def server(name: str, url: str) -> Finding:
    """Whether a server that the environment names answers, lets us in, and has our time."""
    try:
        if name == "Prefect":
            access.check_prefect(url)
        else:
            access.check_mlflow(url)
    except UserError as error:
        return Finding(BAD, f"{name} server", str(error), "see the variable that is named")
    shown = access.without_password(url)
    difference = _clock_difference(url)
    if difference > MAX_CLOCK_SECONDS:
        text = f"{shown} answers, but its clock and ours differ by {difference:.0f} s"
        cure = "set both clocks by NTP; schedules and the order of events depend on them"
        return Finding(BAD, f"{name} server", text, cure)
    return Finding(GOOD, f"{name} server", f"{shown} answers and lets us in")


def _clock_difference(url: str) -> float:
    with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
        date = httpx.get(url, timeout=access.TIMEOUT_SECONDS).headers["Date"]
        return abs(time.time() - parsedate_to_datetime(date).timestamp())
    return 0.0


def passwords() -> Finding:
    """Whether the passwords in the environment are complete."""
    try:
        known = {"Prefect": access.prefect_password(), "MLflow": access.mlflow_password()}
    except UserError as error:
        return Finding(BAD, "Passwords", str(error), "set them, or unset them all")
    asked = [name for name, value in known.items() if value]
    text = f"asked for by {' and '.join(asked)}" if asked else "none: only this machine is served"
    return Finding(GOOD if asked else NOTE, "Passwords", text)


def leftovers() -> Finding:
    """Whether an ``rlhf up`` that was killed left something behind."""
    if servers.standing_servers() is not None:
        return Finding(GOOD, "rlhf up", "is running")
    if left := supervisor.count_leftovers():
        text = f"was killed, and {left} of its processes are still running"
        return Finding(BAD, "rlhf up", text, "rlhf up ends them and starts anew")
    try:
        is_recorded = (prefect_folder() / servers.STANDING_FILE).exists()
    except PermissionError as error:
        return _closed("rlhf up", prefect_folder(), error)
    if is_recorded:
        return Finding(NOTE, "rlhf up", "was killed; the record that it left counts for nothing")
    return Finding(GOOD, "rlhf up", "is not running")


def _closed(subject: str, path: Path, error: PermissionError) -> Finding:
    cure = "correct the permissions, or set RLHF_DATA_ROOT to another folder"
    return Finding(BAD, subject, f"{path}: {error.strerror}", cure)
