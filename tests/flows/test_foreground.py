"""Running a flow in the process of a command; with a server of its own: tests of ``rlhf run``."""

import os
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from flows import foreground, progress
from stages.core.errors import UserError

FLOW = """
from prefect import flow
from flows import progress

@flow(persist_result=False)
def greet(name, loudly=False):
    progress.current().start("greet")
    progress.current().warn("greet", f"greeting {name}")
    if name == "nobody":
        raise ValueError("nobody is there")
    return name.upper() if loudly else name
"""


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=200)


@pytest.mark.slow
def test_a_flow_runs_here_and_its_summary_ends_in_the_given_places(
    console: Console, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    prefect_server: None, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import prefect.settings

    (tmp_path / "greeting.py").write_text(FLOW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", prefect.settings.PREFECT_API_URL.value())
    places = {"greetings": "in the hall"}
    result = foreground.run_flow(console, "greeting", "greet", "ada", loudly=True, places=places)
    assert result == "ADA"
    with pytest.raises(ValueError, match="nobody is there"):
        foreground.run_flow(console, "greeting", "greet", "nobody")
    assert isinstance(console.file, StringIO)
    assert "in the hall" in console.file.getvalue()
    assert "greeting ada" in capsys.readouterr().out
    assert progress.current().rows == {}  # the terminal is no longer told


def test_a_server_that_does_not_answer_ends_the_command_before_the_flow_is_imported(
    console: Console, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(UserError, match="Prefect server at http://127.0.0.1:9/api"):
        foreground.run_flow(console, "no_such_module", "flow")


def test_without_standing_servers_tracking_stays_where_it_is(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert foreground.standing() is None
    assert "MLFLOW_TRACKING_URI" not in os.environ
