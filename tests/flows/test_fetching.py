"""Remote sources through the flow, against real servers: Prefect's, MLflow's store and a web's."""

import datetime
import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows import pipeline, progress
from flows.plan import check, planned_stages
from flows.profiles import cpu_demo, override
from stages.core import tracking
from stages.core.config import PipelineConfig
from stages.core.errors import UserError
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, pair_id
from stages.core.schemas import read_jsonl
from stages.core.tracking.client import PatientClient, experiment_id

pytestmark = pytest.mark.usefixtures("prefect_server", "data_root")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which a web server shows it."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def write_replies(path: Path, num_rows: int) -> None:
    rows = [{"question": f"What is {n} + 1?", "completion": str(n + 1)} for n in range(num_rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def collect(config: PipelineConfig) -> progress.Reporter:
    reporter = progress.Reporter()
    with progress.reporting_to(reporter):
        pipeline.align(config, until_stage="collect")
    return reporter


@pytest.mark.slow
def test_a_url_is_fetched_collected_and_the_second_time_reused(
    tiny_config: PipelineConfig, site: tuple[Path, str], data_root: Path
) -> None:
    folder, url = site
    write_replies(folder / "replies.jsonl", 30)
    config = override(
        tiny_config,
        {
            "collect.sft.urls": f"{url}/replies.jsonl",
            "collect.sft.columns": {"prompt": "question"},
            "collect.sft.held_out_share": 0.2,
        },
    )
    first = collect(config)
    assert {name: row.state for name, row in first.rows.items()} == {
        "fetch": "done",
        "collect": "done",
    }
    assert first.rows["fetch"].metrics["files"] == 1
    (collected,) = (data_root / "runs" / "collect").glob("*/result.json")
    splits = [collected.parent / "sft" / f"{name}.jsonl" for name in ("train", "held_out")]
    rows = [row for split in splits for row in read_jsonl(split)]
    assert {row["prompt"] for row in rows} == {f"What is {n} + 1?" for n in range(30)}
    log = (data_root / "cache" / "sources" / "fetch.log").read_text()
    assert f"{url}/replies.jsonl: fetched: 1 file(s)" in log

    second = collect(config)
    assert second.rows["collect"].state == "reused"
    log = (data_root / "cache" / "sources" / "fetch.log").read_text()
    assert f"{url}/replies.jsonl: unchanged since " in log

    write_replies(folder / "replies.jsonl", 31)
    assert collect(config).rows["collect"].state == "done"


@pytest.mark.slow
def test_a_source_that_cannot_be_fetched_ends_the_run_with_its_setting(
    tiny_config: PipelineConfig, site: tuple[Path, str]
) -> None:
    config = override(tiny_config, {"collect.prompts.urls": f"{site[1]}/gone.jsonl"})
    with pytest.raises(UserError, match=r"^fetch: collect.prompts.urls.0: http.*: 404 File not f"):
        collect(config)


@pytest.mark.slow
def test_a_database_file_is_looked_for_where_the_user_is(
    tiny_config: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("prompts.db") as connection:
        connection.execute("CREATE TABLE prompts (prompt TEXT)")
        rows = [(f"Question {n}?",) for n in range(30)]
        connection.executemany("INSERT INTO prompts VALUES (?)", rows)
    sql = {"url": "sqlite:///prompts.db", "query": "SELECT prompt FROM prompts ORDER BY prompt"}
    reporter = collect(override(tiny_config, {"collect.prompts.sql": sql}))
    assert reporter.rows["collect"].metrics["prompts_train"] > 20


def test_remote_sources_count_as_data() -> None:
    empty = {"collect.sft.paths": [], "collect.labelled.paths": []}
    empty |= {name.replace("paths", "held_out_paths"): [] for name in empty}
    remote = {f"collect.{kind}.urls": "https://host/a.jsonl" for kind in ("sft", "labelled")}
    config = override(cpu_demo(), empty)
    with pytest.raises(UserError, match=r"collect.sft.paths is empty"):
        check(config, planned_stages(config))
    config = override(config, remote)
    stages = planned_stages(config)
    check(config, stages)
    assert "classifier" in stages


@pytest.mark.slow
def test_judgments_are_read_anew_and_their_run_records_them_without_names(
    tiny_config: PipelineConfig, data_root: Path
) -> None:
    client = PatientClient()
    run_id = client.create_run(experiment_id(client, "pipelines")).info.run_id
    tracking.record_judgments("town", [judgment(n) for n in range(12)], run_id)
    source = {"experiment": "town"}
    config = override(
        tiny_config,
        {
            "profile": "judged",
            **{f"collect.{kind}.feedback": source for kind in ("preferences", "prompts")},
        },
    )
    first = collect(config)
    assert first.rows["collect"].metrics["preferences_feedback_human"] == 9
    assert first.rows["collect"].metrics["preferences_held_out_feedback_human"] == 3
    assert len(list(data_root.glob("runs/collect/*/prompts/reserved.jsonl"))) == 1
    assert collect(config).rows["collect"].state == "reused"

    found = client.search_runs(
        [experiment_id(client, "judged")], "attributes.run_name = 'collect'", max_results=10
    )
    (run,) = (run for run in found if "reused_from" not in run.data.tags)
    assert run.data.metrics["feedback_judgments_human"] == 12
    (report,) = client.list_artifacts(run.info.run_id, "stage/feedback")
    text = Path(client.download_artifacts(run.info.run_id, report.path)).read_text()
    assert json.loads(text)["by_annotator"] == {tracking.pseudonym("town", "anna@host.org"): 12}
    assert "anna" not in str(run.to_dictionary())
    for path in (data_root / "runs" / "collect").rglob("*.*"):
        assert path.is_dir() or "anna" not in path.read_text(), path

    tracking.record_judgments("town", [judgment(12)], run_id)
    assert collect(config).rows["collect"].state == "done"


def judgment(number: int) -> Judgment:
    """A pair of the random share for every fourth number."""
    prompt, replies = f"Question {number}?", ("Yes.", "No.")
    pair = CandidatePair(
        pair_id=pair_id(prompt, *replies),
        prompt=prompt,
        reply_a=replies[0],
        reply_b=replies[1],
        purpose="random" if number % 4 == 3 else "chosen",
    )
    return Judgment(
        judgment_id="",
        trace_id="",
        queue="",
        pair=pair,
        verdict="a",
        annotator="anna@host.org",
        created_at=datetime.datetime(2026, 11, 2, tzinfo=datetime.UTC),
    )
