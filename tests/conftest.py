"""What holds for the whole suite: no network, no telemetry, nothing written outside ``tmp_path``.

The variables are set before the libraries that read them are imported, which is why this happens on
import and not in a fixture. Processes that tests start inherit them.
"""

import json
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
    """Quick tests first: most mistakes show within the first minute. But the modules in a browser
    take longest, and one that begins last would run alone at the end."""

    def turn(item: pytest.Item) -> int:
        if item.path.is_relative_to(CHECKOUT / "tests" / "e2e"):
            return 0
        return 2 if item.get_closest_marker("slow") else 1

    items.sort(key=turn)


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


class JudgeServer:
    """A chat endpoint that judges: of two replies it prefers the one that begins with GOOD."""

    REPLY = re.compile(r"=== reply ([AB]) (\w+) ===\n(.*?)\n=== end of reply \1 \2 ===", re.DOTALL)

    def __init__(self) -> None:
        self.answer: Callable[[str, str], str] = self.fair
        """What it writes about two replies, in the order in which they are shown."""
        self.status = 200
        self.questions: list[tuple[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                content = server.reply(body["messages"][-1]["content"]).encode()
                self.send_response(server.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def reply(self, question: str) -> str:
        first, second = (text for _, _, text in self.REPLY.findall(question))
        self.questions.append((first, second))
        message = {"role": "assistant", "content": self.answer(first, second)}
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        return json.dumps({"choices": [{"message": message}], "usage": usage})

    @staticmethod
    def fair(first: str, second: str) -> str:
        goods = [text.startswith("GOOD") for text in (first, second)]
        verdict = "TIE" if goods[0] == goods[1] else "A" if goods[0] else "B"
        return f"I looked at both.\n[[{verdict}]]"


@pytest.fixture
def judge_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    """A server that plays the judge, with the questions that it was asked."""
    monkeypatch.setenv("RLHF_JUDGE_API_KEY", "sk-test")
    server = JudgeServer()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()
