"""What holds for the whole suite: no network, no telemetry, nothing written outside ``tmp_path``.

The variables are set before the libraries that read them are imported, which is why this happens on
import and not in a fixture. Processes that tests start inherit them.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.environment import STAGE_ENVIRONMENT

CHECKOUT = Path(__file__).resolve().parents[1]
SLOW_SECONDS = 5.0

os.environ.update(STAGE_ENVIRONMENT)
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "MPLBACKEND": "agg",
        # The models of the tests are so small that threads would only wait for each other.
        "OMP_NUM_THREADS": "1",
    }
)
for _name in ("MLFLOW_TRACKING_URI", "RLHF_TRACKING_PARENT_RUN", "RLHF_PREFECT_FLOW_RUN"):
    os.environ.pop(_name, None)


def pytest_configure(config: pytest.Config) -> None:
    """Caches, and the data root of what runs outside a test, in a folder that goes at the end."""
    # A shell has what it starts in the background ignore Ctrl-C, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = tempfile.TemporaryDirectory(prefix="rlhf-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["HF_HOME"] = f"{folder.name}/huggingface"
    os.environ["RLHF_DATA_ROOT"] = f"{folder.name}/data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests first: most mistakes show within the first minute."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that take long but are not marked ``slow``; fixtures are not counted."""
    for report in terminalreporter.getreports("passed"):
        is_long = report.when == "call" and report.duration > SLOW_SECONDS
        if is_long and "slow" not in report.keywords:
            message = f"not marked slow: {report.nodeid} ({report.duration:.1f} s)"
            terminalreporter.write_line(message, yellow=True)


@pytest.fixture(autouse=True)
def _own_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a data root of its own, and leaves no tracking run and no URI behind."""
    monkeypatch.setenv("RLHF_DATA_ROOT", str(tmp_path))
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    stage_runs = sys.modules.get("stages.core.tracking.stage_runs")
    if stage_runs is not None:
        while stage_runs.mlflow.active_run() is not None:
            stage_runs.mlflow.end_run("KILLED")
        stage_runs._current.update(metrics_path=None, sender=None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the repository, which holds real data and models."""
    folder = CHECKOUT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside the repository: real data and models are not there")
    return folder
