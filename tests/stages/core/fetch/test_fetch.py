"""The process that fetches, and what all sources have in common."""

import json
import os
import subprocess
import sys
import threading

import pytest
from pydantic import ValidationError

from stages.core.artifacts import file_digest
from stages.core.config import CollectConfig, DataSource, UrlSource
from stages.core.contracts import CollectInputs
from stages.core.fetch import __main__ as process
from stages.core.fetch import cache_folder
from stages.core.fetch.snapshots import locked
from stages.core.fetch.sources import fetch


def quiet(done, total, unit):
    """No progress is looked at."""


def run(folder, config, **environment):
    """The process's exit code, its lines, and the inputs for collect that it wrote."""
    folder.mkdir(exist_ok=True)
    spec = {"config": config.model_dump(mode="json"), "folder": str(folder)}
    (folder / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-m", "stages.core.fetch", str(folder)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stdout + done.stderr
    path = folder / process.INPUTS_FILE
    inputs = CollectInputs.model_validate_json(path.read_text()) if path.exists() else None
    return done.returncode, done.stdout.splitlines(), inputs


def test_the_files_of_all_kinds_become_inputs_of_collect(server, tmp_path):
    server.files = {"/a.jsonl": b'{"text": "a"}\n', "/b.csv": b"prompt\nWhy?\n"}
    config = CollectConfig(
        documents=DataSource(urls=(UrlSource(url=f"{server.url}/a.jsonl"),)),
        prompts=DataSource(urls=(UrlSource(url=f"{server.url}/b.csv"),)),
    )
    environment = {"RLHF_PARENT_PID": str(os.getpid())}
    code, lines, inputs = run(tmp_path / "run", config, **environment)
    assert code == 0
    (document,), (prompt,) = inputs.documents, inputs.prompts
    assert document.locate().read_bytes() == b'{"text": "a"}\n'
    assert document.path.startswith("cache/sources/")
    assert prompt.digest == file_digest(prompt.locate())
    progress = [line for line in lines if line.startswith("::progress ")]
    assert json.loads(progress[0].removeprefix("::progress "))["total"] == 14
    assert [line for line in lines if f"{server.url}/b.csv: fetched: 1 file(s), 0.0 MB" in line]


def test_a_refusal_names_the_setting(server, tmp_path):
    server.files = {"/a.jsonl": b'{"text": "a"}\n'}
    urls = (UrlSource(url=f"{server.url}/a.jsonl"), UrlSource(url=f"{server.url}/gone.jsonl"))
    code, lines, _ = run(tmp_path / "run", CollectConfig(sft=DataSource(urls=urls)))
    assert code == 2
    assert lines[-1].startswith(f"::error collect.sft.urls.1: {server.url}/gone.jsonl: 404")


def test_what_another_run_is_fetching_is_waited_for(server, cache, capsys):
    server.files["/a.jsonl"] = b'{"text": "a"}\n'
    source = UrlSource(url=f"{server.url}/a.jsonl")
    is_locked, may_end = threading.Event(), threading.Event()

    def other_run():
        with locked(cache, source, lambda: None):
            is_locked.set()
            may_end.wait(10)

    thread = threading.Thread(target=other_run)
    thread.start()
    assert is_locked.wait(10)
    threading.Timer(0.2, may_end.set).start()
    assert fetch(source, cache, quiet).size_bytes == 14
    thread.join()
    assert "another run is fetching it; waiting for that" in capsys.readouterr().out


def test_the_cache_lies_below_the_data_root(tmp_path):
    assert cache_folder() == tmp_path / "cache" / "sources"


def test_nothing_heavy_is_imported_before_it_is_needed():
    names = ("torch", "transformers", "datasets", "sqlalchemy", "boto3", "prefect", "httpx")
    code = f"import sys, stages.core.fetch.sources; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_judgments_are_no_documents():
    with pytest.raises(ValidationError, match="judgments are no documents"):
        CollectConfig(documents=DataSource(feedback=({"experiment": "feedback"},)))
