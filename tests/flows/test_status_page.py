"""The page, from facts alone."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from flows import status_page

RUN = {
    "run_id": "r",
    "name": "cpu-demo seed 0",
    "experiment": "cpu-demo",
    "state": "finished",
    "started": "2026-11-22T04:00:00+00:00",
    "seconds": 375.0,
    "policy_version": "3",
    "gate": "refused: KL 30 is above 20",
    "figures": {"win_rate_policy_vs_sft": 0.9, "kl_policy": 1.93},
}
EMPTY: dict[str, Any] = {
    "runs": [],
    "versions": {},
    "judgments": None,
    "next": None,
    "problems": {},
}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function: what is printed into a pipe."""

    def shown(**facts: Any) -> str:
        file = io.StringIO()
        status_page.show(EMPTY | facts, Console(file=file, highlight=False))
        return file.getvalue()

    return shown


def test_before_the_first_run_it_says_what_to_do(shown: Any) -> None:
    text = shown()
    assert "No run yet. rlhf run --profile cpu-demo" in text
    assert "No Prefect server runs, so nothing runs on schedule: start one with rlhf up." in text


def test_a_run_is_one_line_in_a_pipe(shown: Any) -> None:
    line = next(line for line in shown(runs=[RUN]).splitlines() if "cpu-demo" in line)
    assert line.startswith("cpu-demo seed 0  finished  2026-11-22 ")
    assert line.endswith("6 min 15 s  version 3, gate refused  wins against SFT 0.9  KL 1.93")
    assert "\x1b" not in line


def test_a_name_is_shown_as_it_is(shown: Any) -> None:
    assert "other: [red]x[/]" in shown(runs=[RUN | {"experiment": "other", "name": "[red]x[/]"}])


def test_versions_and_no_champion(shown: Any) -> None:
    version = {"number": "3", "created": "2026-11-22T04:06:00+00:00", "gate": "passed",
               "run_id": "r", "figures": {}}  # fmt: skip
    text = shown(versions={"challenger": version})
    assert "challenger  version 3  2026-11-22 " in text
    assert "gate passed" in text
    assert "No champion yet" in text
    assert "No champion yet" not in shown(versions={"champion": version})


def test_judgments_and_their_queues(shown: Any) -> None:
    queues = [{"name": f"round · {n}", "pending": n, "finished": 4, "page": "p"} for n in range(8)]
    found = {
        "experiment": "feedback", "page": "http://m/#/q", "page_is_served": True, "total": 1200,
        "human": 1100, "ai": 100, "since": 30, "pending": 28, "queues": queues,
        "last_learned": {"run": "retrain 2", "version": "7", "until": "2026-11-01T00:00:00Z"},
    }  # fmt: skip
    text = shown(judgments=found)
    assert (
        "1,200 judgments: 1,100 by people, 100 by models; 30 of them since retrain 2 (version 7)\n"
        "28 answers wanted in 8 queues: http://m/#/q\n"
    ) in text
    assert "  round · 1  4 done, 1 to do" in text
    assert "round · 0" not in text
    assert "  and 2 more queues" in text
    text = shown(judgments=found | {"last_learned": None, "page_is_served": False})
    assert "no model has learned from them yet" in text
    assert "http://m/#/q (once rlhf up serves it)" in text
    assert "None yet: rlhf feedback ask opens a review queue" in shown()


def test_what_runs_next_and_what_is_late(shown: Any) -> None:
    now = datetime.now(UTC)
    runs = [
        {"deployment": "promote/on-cpu", "due": str(now - timedelta(hours=1)), "schedule": ""},
        {"deployment": "retrain/retrain", "due": str(now + timedelta(hours=1)),
         "schedule": "0 4 * * 0 UTC"},
    ]  # fmt: skip
    found = {"next_runs": runs, "paused": ["align/x"], "automations": {"rlhf: a": False}}
    text = shown(next=found)
    late, due = (line for line in text.splitlines() if "/retrain" in line or "/on-cpu" in line)
    assert "(late: does a worker run?)  triggered; it waits for a worker" in " ".join(
        late.split("   ")
    )
    assert due.rstrip().endswith("   0 4 * * 0 UTC")
    assert "late" not in due
    assert "Schedule off: align/x" in text
    assert "Automation OFF: rlhf: a" in text
    assert "No schedule is on" in shown(next=found | {"next_runs": []})


def test_a_server_that_is_away_is_one_line_in_its_place(shown: Any) -> None:
    text = shown(runs=None, problems={"MLflow": "MLflow is away", "Prefect": "Prefect is away"})
    assert text.splitlines() == ["Last runs", "MLflow is away", "", "Next", "Prefect is away"]


def test_the_most_telling_figures_are_chosen() -> None:
    metrics = {"a": 1.0, "system/cpu": 2.0, "kl_policy": 3.0, "reward_model_accuracy": 0.7}
    assert status_page.main_figures(metrics) == {"reward_model_accuracy": 0.7, "kl_policy": 3.0}
    assert status_page.main_figures({"train_loss": 1.0, "pairs": 9.0}) == {"pairs": 9.0}
