"""MLflow as ``rlhf up`` runs it: with accounts, started again when it dies; and its database.

Passwords are hashed in one round in place of MLflow's costly default, since the load is to fall on
the queues: by default each request of a page spends most of its time on the password.
"""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from werkzeug.security import generate_password_hash

from flows import servers, supervisor
from flows.environment import mlflow_folder

ADMIN = ("administrator", "administrators-password")
START_SECONDS = 180.0
DATABASE = "mlflow"


@contextlib.contextmanager
def database(kind: str, root: Path) -> Iterator[str]:
    """The address of an empty database; ``kind`` is sqlite or postgresql."""
    if kind == "sqlite":
        yield f"sqlite:///{root / 'mlflow.db'}"
        return
    with _postgresql(root / "postgresql") as port:
        yield f"postgresql+psycopg2://postgres@{servers.HOST}:{port}/{DATABASE}"


@contextlib.contextmanager
def _postgresql(folder: Path) -> Iterator[int]:
    """A cluster with one database, without password, seen by this machine alone; its port."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        raise SystemExit("PostgreSQL is not installed: apt-get install postgresql")
    folder.mkdir()
    options: dict[str, Any] = {"cwd": "/"}
    if os.geteuid() == 0:  # which PostgreSQL refuses
        for above in (folder, *folder.parents):
            if above.stat().st_uid == 0 and above.name.startswith("feedback-"):
                above.chmod(0o711)
        shutil.chown(folder, "postgres", "postgres")
        options |= {"user": "postgres", "group": "postgres", "extra_groups": []}
    make = [programs[-1] / "initdb", f"--pgdata={folder}", "--username=postgres", "--auth=trust"]
    subprocess.run(
        [*make, "--encoding=UTF8", "--no-sync"], check=True, capture_output=True, **options
    )
    port = servers.free_port()
    serve = [programs[-1] / "postgres", "-D", folder, "-h", servers.HOST, "-p", str(port), "-k", ""]
    with (folder.parent / "postgresql.log").open("wb") as log:
        process = subprocess.Popen(serve, stdout=log, stderr=log, **options)
    try:
        create = [programs[-1] / "createdb", "-h", servers.HOST, "-p", str(port), "-U", "postgres"]
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run([*create, DATABASE], capture_output=True).returncode:
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"PostgreSQL does not start: see {folder.parent}/postgresql.log")
            time.sleep(0.2)
        yield port
    finally:
        process.send_signal(signal.SIGINT)  # its fast way to end
        process.wait()


class Machine:
    """An MLflow server with accounts, and who starts it again. Call it from the main thread."""

    def __init__(self, store: str, root: Path) -> None:
        os.environ["RLHF_DATA_ROOT"] = str(root)
        os.environ["MLFLOW_BACKEND_STORE_URI"] = store
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = ADMIN
        mlflow_folder().mkdir(parents=True, exist_ok=True)
        self.kills = 0
        self._port = servers.free_port()
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        server = servers.start_mlflow(self._port)
        self.url = server.url
        os.environ["MLFLOW_TRACKING_URI"] = self.url
        self._child = supervisor.Child("MLflow", self._start, server.log, server.process)
        servers.wait_until_healthy(server, START_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        return servers.start_mlflow(self._port).process

    def look_after(self) -> None:
        """Start the server again where it has died; to be called again and again."""
        supervisor.look_after([self._child], lambda text: print(text, flush=True))

    def kill(self) -> None:
        """SIGKILL to the server and all of its processes, whatever they are doing."""
        os.killpg(self._child.process.pid, signal.SIGKILL)
        self._child.process.wait()
        self.kills += 1

    def is_up(self) -> bool:
        return self._child.start_at is None and servers.is_healthy(f"{self.url}/health")

    def wait(self) -> None:
        """Until the server answers."""
        deadline = time.monotonic() + START_SECONDS
        while not self.is_up():
            if time.monotonic() > deadline:
                raise SystemExit(f"MLflow does not answer: see {self._child.log}")
            self.look_after()
            time.sleep(0.2)

    def end(self) -> None:
        servers.stop(self._child.process)


def add_accounts(url: str, names: list[str]) -> dict[str, tuple[str, str]]:
    """An account for each name; login and password by name."""
    from mlflow.server import get_app_client

    client = get_app_client("basic-auth", url)
    logins = {name: (name, f"password-of-{name}") for name in names}
    for login in logins.values():
        client.create_user(*login)
    with contextlib.closing(sqlite3.connect(mlflow_folder() / "accounts.db")) as accounts, accounts:
        for name, password in (*logins.values(), ADMIN):
            quick = generate_password_hash(password, "pbkdf2:sha256:1")
            accounts.execute("update users set password_hash = ? where username = ?", (quick, name))
    return logins


def count_answers(store: str, question: str) -> tuple[int, int]:
    """Answers to a question in MLflow's tables: all of them, and how many traces have valid ones
    by the same person more than once."""
    engine = sqlalchemy.create_engine(store)
    rows = "from assessments where name = :name"
    twice = f"select 1 {rows} and valid group by trace_id, source_id having count(*) > 1"
    with engine.connect() as connection:
        counts = [
            connection.scalar(sqlalchemy.text(query), {"name": question})
            for query in (f"select count(*) {rows}", f"select count(*) from ({twice}) as doubled")
        ]
    engine.dispose()
    return int(counts[0] or 0), int(counts[1] or 0)
