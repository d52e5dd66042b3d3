"""One Prefect server for all flow tests, and a data root of its own for each test."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.environment import NO_TELEMETRY
from flows.profiles import cpu_demo, override
from stages.core.config import PipelineConfig

# Read when prefect is imported, which happens while the tests are collected.
os.environ.update(NO_TELEMETRY)
os.environ.setdefault("PREFECT_HOME", tempfile.mkdtemp(prefix="prefect-"))
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server that lives as long as the test session."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with all its tables, whose making takes long."""
    import mlflow

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="module")
def mlflow_database(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for the tests of a module: no other module's champion or judgments are in it."""
    return Path(shutil.copy(empty_database, tmp_path_factory.mktemp("mlflow") / "mlflow.db"))


@pytest.fixture
def data_root(tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root of the test's own; MLflow's database is the module's."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("RLHF_DATA_ROOT", str(root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow_database}")
    monkeypatch.setenv("PREFECT_API_URL", "")  # so that what a test sets is undone
    monkeypatch.delenv("PREFECT_API_URL")
    return root


@pytest.fixture
def tiny_config(tmp_path: Path) -> PipelineConfig:
    """Forty short documents and nothing else: enough for collect, clean and tokenizer."""
    documents = tmp_path / "documents.jsonl"
    rows = [
        {"text": f"The {n}th house in the lane has {n + 2} windows and a door."} for n in range(40)
    ]
    documents.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    held_out = tmp_path / "held_out.jsonl"
    text = "The last house in the lane has no windows, but it has two doors."
    held_out.write_text(json.dumps({"text": text}) + "\n", encoding="utf-8")
    empty = {
        f"collect.{kind}.{name}": []
        for kind in ("sft", "preferences", "prompts")
        for name in ("paths", "held_out_paths")
    }
    return override(
        cpu_demo(),
        {
            "profile": "tiny",
            "collect.documents.paths": [str(documents)],
            "collect.documents.held_out_paths": [str(held_out)],
            **empty,
        },
    )


@pytest.fixture
def config_file(tmp_path: Path, tiny_config: PipelineConfig) -> Path:
    path = tmp_path / "run.json"
    path.write_text(tiny_config.model_dump_json(), encoding="utf-8")
    return path


ReadRows = Callable[[str], list[tuple[str, ...]]]


@pytest.fixture
def prefect_rows(data_root: Path) -> ReadRows:
    """Reads rows of the Prefect database below the data root."""
    import sqlite3

    def read(query: str) -> list[tuple[str, ...]]:
        with sqlite3.connect(data_root / "prefect" / "prefect.db") as connection:
            return connection.execute(query).fetchall()

    return read
