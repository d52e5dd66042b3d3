"""Passwords and tokens of the environment appear in nothing that a run writes or says."""

import base64
import contextlib
import json
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from flows import access, servers
from flows.environment import CHECKOUT
from stages.core import tracking
from stages.core.errors import without_passwords
from stages.core.tracking import client

NAMES = (
    "PREFECT_SERVER_API_AUTH_STRING", "HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    "OPENAI_API_KEY", "RLHF_JUDGE_API_KEY", "WANDB_API_KEY", "PGPASSWORD",
)  # fmt: skip


def _run(arguments: list[str], home: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit code and output of the command, with nothing of Prefect's set but what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    ended = subprocess.run(
        [sys.executable, "-m", "flows", *arguments],
        cwd=CHECKOUT,
        env={**kept, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=540,
    )
    return ended.returncode, ended.stdout + ended.stderr


def _found(values: list[str], folder: Path, output: str) -> list[str]:
    """Where a value appears: as it is, as in an address, or as in a header."""
    forms = [
        form
        for value in values
        for form in (value.encode(), quote(value, safe="").encode(), *_base64(value))
    ]
    texts = {path.as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    texts["the output"] = output.encode()
    assert len(texts) > 2
    return [place for place, text in texts.items() if any(form in text for form in forms)]


def _base64(value: str) -> list[bytes]:
    """The value inside base64: the middle of it, for each place that it may begin at."""
    return [base64.b64encode(b"x" * shift + value.encode())[4:-4] for shift in range(3)]


def _tiny(folder: Path) -> Path:
    """The file of a configuration with forty short documents."""
    documents = folder / "documents.jsonl"
    texts = [f"The {n}th house in the lane has {n + 2} windows and a door." for n in range(40)]
    documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    path = folder / "run.json"
    settings = {
        "collect": {"documents": {"paths": [str(documents)], "held_out_share": 0.2}},
        "tokenizer": {"vocab_size": 300},
    }
    path.write_text(json.dumps(settings))
    return path


@pytest.mark.slow
def test_a_run_writes_none_of_the_secrets_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, home = tmp_path / "data", tmp_path / "home"
    home.mkdir()
    (root / "mlflow").mkdir(parents=True)
    monkeypatch.setenv("RLHF_DATA_ROOT", str(root))
    planted = {name: f"{name.lower()}:{secrets.token_hex(16)}" for name in NAMES}
    password = secrets.token_hex(16)
    values = [*planted.values(), password]
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    with contextlib.ExitStack() as stack:
        mlflow = stack.enter_context(servers.stopped_at_exit(servers.start_mlflow()))
        servers.wait_until_healthy(mlflow)
        access.check_mlflow(mlflow.url)
        # The run has the login in the address alone.
        for name in ("USERNAME", "PASSWORD"):
            monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
        with_login = mlflow.url.replace("://", f"://somebody:{password}@")
        environment = {**planted, "MLFLOW_TRACKING_URI": with_login}
        arguments = ["run", "--config", str(_tiny(tmp_path)), "--until", "tokenizer"]
        code, output = _run(arguments, home, environment)
    assert code == 0, output
    assert "tokenizer: done" in output
    assert (root / "prefect" / "prefect.db").exists()
    assert list((root / "mlflow" / "artifacts").rglob("stage/result.json"))
    values += [value.partition(":")[2] for value in planted.values()]
    assert _found(values, root, output) == []
    assert list(home.iterdir()) == []


@pytest.mark.slow
def test_a_database_that_cannot_be_reached_keeps_its_password(tmp_path: Path) -> None:
    root, password = tmp_path / "data", secrets.token_hex(16)
    root.mkdir()
    environment = {
        "RLHF_DATA_ROOT": str(root),
        "PREFECT_API_DATABASE_CONNECTION_URL": (
            f"postgresql+asyncpg://prefect:{password}@127.0.0.1:{servers.free_port()}/prefect"
        ),
    }
    arguments = ["run", "--config", str(_tiny(tmp_path)), "--until", "collect"]
    code, output = _run(arguments, tmp_path, environment)
    assert (code, output.count("\n")) == (2, 1), output
    assert "the Prefect server ended at its start" in output
    assert _found([password], root, output) == []


@pytest.fixture
def tracking_login(monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracking address with a login, at which nobody answers."""
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")  # restored at the end
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    address = f"127.0.0.1:{servers.free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://some%40body:hunt%2Fer2@{address}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return address


def test_the_login_of_the_tracking_address_goes_to_its_own_variables(tracking_login: str) -> None:
    assert servers.mlflow_address() == f"http://{tracking_login}"
    assert tracking.set_up() == tracking.address() == f"http://{tracking_login}"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "some@body"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "hunt/er2"


def test_waiting_for_mlflow_names_its_address_and_not_its_password(
    tracking_login: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(client, "SECONDS_BETWEEN_TRIES", 1.0)
    with caplog.at_level(logging.WARNING), pytest.raises(Exception, match=tracking_login) as ended:
        tracking.earlier_run("")
    said = caplog.text + str(ended.value)
    assert "MLflow does not answer" in said
    assert "hunt" not in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://a:b@host:1/path failed", "http://host:1/path failed"),
        ("'postgresql+psycopg2://a:b@c@host/db'", "'postgresql+psycopg2://host/db'"),
        ("https://host/x@y and mail@host", "https://host/x@y and mail@host"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ],
)
def test_addresses_are_shown_without_their_logins(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
