"""``rlhf feedback import`` and ``export`` with a real MLflow store."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from stages.core import tracking

Command = Callable[..., tuple[int, str, str]]
ROWS = [
    {"prompt": "Why is the sky blue?", "chosen": "Air scatters.", "rejected": "It is.",
     "annotator": "bob", "created_at": "2026-11-01T08:00:00Z", "margin": 2},
    {"prompt": "How many legs has a spider?", "chosen": "Eight.", "rejected": "Six."},
]  # fmt: skip


@pytest.fixture
def experiment() -> str:
    """A name for an experiment of the test's own."""
    return f"feedback-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def feedback(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs ``rlhf feedback …`` and returns its exit code, output and errors."""
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setenv("COLUMNS", "200")
    tracking.last_runs(1)  # makes the tables of the store, which takes seconds

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["feedback", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def to_file(*records: Any, name: str = "given.jsonl") -> Path:
        path = tmp_path / name
        lines = [item if isinstance(item, str) else json.dumps(item) for item in records]
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return to_file


def test_what_is_imported_is_a_judgment_and_is_exported_under_pseudonyms(
    feedback: Command, write: Callable[..., Path], experiment: str, tmp_path: Path
) -> None:
    path = write(*ROWS, "{broken", ROWS[0] | {"chosen": "It is."})
    code, text, _ = feedback("import", path, "--experiment", experiment, "--annotator", "carl")
    assert code == 0
    *refused, last = text.splitlines()
    assert [line.partition(": ")[0] for line in refused] == [f"{path}:3", f"{path}:4"]
    assert last == f"{path}: 2 judgments (TRL preference), 2 of them new; 2 records refused"
    bob, carl = tracking.judgments(experiment)
    assert (bob.annotator, bob.strength, bob.created_at.year) == ("bob", 2, 2026)
    assert (carl.annotator, carl.pair.purpose) == ("carl", "imported")

    for name in ("jsonl", "hh", "argilla"):
        out = tmp_path / f"{name}.jsonl"
        asked = ("export", out, "--format", name, "--experiment", experiment)
        assert feedback(*asked) == (0, f"{out}: 2 preferences of 2 judgments\n", "")
        text = out.read_text()
        assert "bob" not in text
        assert "carl" not in text
        assert (tracking.pseudonym(experiment, "bob") in text) == (name != "hh")
    code, _, errors = feedback(*asked)
    assert (code, errors) == (
        2,
        f"rlhf: {out}: exists; --force replaces it, or choose another name\n",
    )
    assert feedback(*asked, "--force")[0] == 0


def test_importing_again_adds_nothing(
    feedback: Command, write: Callable[..., Path], experiment: str, tmp_path: Path
) -> None:
    path, exported = write(*ROWS), tmp_path / "exported.jsonl"
    for num_new in (2, 0):
        _, text, _ = feedback("import", path, "--experiment", experiment)
        assert text == f"{path}: 2 judgments (TRL preference), {num_new} of them new\n"
    feedback("export", exported, "--experiment", experiment)
    _, text, _ = feedback("import", exported, "--experiment", experiment)
    assert text == f"{exported}: 2 judgments (TRL preference), 0 of them new\n"
    assert len(tracking.judgments(experiment)) == 2
    runs = [run for run in tracking.last_runs(50) if run.experiment == f"{experiment}-imports"]
    assert [(run.name, run.state) for run in runs] == [("import given.jsonl", "finished")]
    assert "bob" not in json.dumps([dict(run.tags) for run in runs])


def test_a_changed_mind_replaces_the_judgment(
    feedback: Command, write: Callable[..., Path], experiment: str
) -> None:
    feedback("import", write(ROWS[0]), "--experiment", experiment)
    other = ROWS[0] | {"chosen": "It is.", "rejected": "Air scatters."}
    _, text, _ = feedback("import", write(other), "--experiment", experiment)
    assert text.endswith("1 of them new\n")
    (judgment,) = tracking.judgments(experiment)
    assert (judgment.verdict, judgment.pair.reply_b) == ("b", "It is.")


def test_what_cannot_be_done_is_one_line(
    feedback: Command, write: Callable[..., Path], experiment: str, tmp_path: Path
) -> None:
    table = tmp_path / "out.csv"
    for arguments, message in (
        (("import", tmp_path / "no.jsonl"), "no such file"),
        (("import", write("{broken", name="broken.jsonl")), "nothing was imported: no record"),
        (("import", write(*ROWS), "--annotator", " "), "--annotator is empty"),
        (("export", table), f"{table}: the file's name must end with .jsonl"),
        (("export", tmp_path / "out.jsonl", "--experiment", experiment), f"{experiment!r}"),
    ):
        code, _, errors = feedback(*arguments)
        assert code == 2
        assert message in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_server_that_is_away_is_said_at_once(
    feedback: Command, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    for arguments in (("import", write(*ROWS)), ("export", tmp_path / "out.jsonl")):
        code, _, errors = feedback(*arguments)
        assert code == 2
        assert "the MLflow server at http://127.0.0.1:1 does not answer" in errors
