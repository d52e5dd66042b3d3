"""Judgments become the next policy, at toy size: nothing to do, no champion, a run that is killed
and begun again, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import prefect.runtime
import psutil
import pytest

from flows import servers
from flows.plan import check_retraining, retraining_stages
from flows.profiles import cpu_demo, override
from flows.retrain import retrain, retrain_demo, with_feedback
from stages.core import tracking
from stages.core.config import FeedbackSource, PipelineConfig
from stages.core.errors import UserError
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, is_reserved, pair_id

CHECKOUT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "profile": "toy",
    "collect.documents.max_records": 200,
    "collect.sft.max_records": 60,
    "collect.preferences.max_records": 60,
    "collect.labelled.paths": [],
    "collect.labelled.held_out_paths": [],
    "clean.guard_share": 0.0,
    "tokenizer.vocab_size": 400,
    "pretrain.max_steps": 2,
    "pretrain.model_overrides": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
    "sft.num_epochs": 0.5,
    "reward_model.num_statistics_samples": 8,
    "reward_model_card.num_bootstrap_samples": 50,
    "reward_model_card.gate.action": "warn",  # so little data teaches it nothing
    "ppo.total_episodes": 32,
    "ppo.batch_size": 8,
    "ppo.num_mini_batches": 1,
    "ppo.max_completion_length": 8,
    "evaluate.num_prompts": 12,
    "evaluate.max_completion_length": 8,
    "evaluate.num_bootstrap_samples": 50,
    "compute.num_threads": 1,
}
COMMAND = """
import sys
from pathlib import Path
from rich.console import Console
from flows import environment, foreground
from stages.core.config import PipelineConfig
from stages.core.errors import UserError
environment.prepare()
config = PipelineConfig.model_validate_json(Path(sys.argv[2]).read_text())
try:
    foreground.run_flow(Console(width=200), "flows." + sys.argv[1], sys.argv[3], config)
except UserError as error:
    sys.exit(f"refused: {error}")
"""


def test_a_retraining_reads_judgments_and_asks_about_the_champion() -> None:
    config = retrain_demo()
    assert config.approval.promotion == "ask"
    assert config.collect.preferences.feedback == config.collect.prompts.feedback
    assert config.collect.preferences.feedback == (FeedbackSource(experiment="feedback"),)
    own = {"collect.preferences.feedback": [{"experiment": "ours", "annotators": "all"}]}
    prompts = with_feedback(override(cpu_demo(), own)).collect.prompts
    assert prompts.feedback == (FeedbackSource(experiment="ours", annotators="all"),)
    assert prompts.paths == cpu_demo().collect.prompts.paths


def test_only_what_judgments_change_is_made_again() -> None:
    changed = ("collect", "clean", "reward_model", "guard_model", "reward_model_card", "ppo",
               "evaluate")  # fmt: skip
    assert retraining_stages(retrain_demo()) == changed
    better = override(retrain_demo(), {"collect.sft.feedback": [{"experiment": "feedback"}]})
    assert retraining_stages(better) == (*changed[:2], "sft", *changed[2:])
    hub = override(retrain_demo(), {"pretrain.enabled": False})  # the base comes from the champion
    assert retraining_stages(hub) == changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"collect.preferences.feedback": [{"until": "2026-11-01"}]},
            r"feedback\.0\.until = 2026-11-01: what was judged since would never be read",
        ),
        (
            {"ppo.scorers": {"own": "score.py:score"}, "ppo.scorer_weights": {"own": 1.0}},
            "gives the reward model no weight, so judgments would change nothing",
        ),
    ],
)
def test_settings_under_which_judgments_change_nothing_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    check_retraining(retrain_demo())
    with pytest.raises(UserError, match=message):
        check_retraining(override(retrain_demo(), changes))


@pytest.mark.slow
def test_a_run_that_begins_again_goes_on_though_nothing_is_new(
    prefect_server: None, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its judgments may have been read by another run, or withdrawn, while it waited."""
    config = override(retrain_demo(), {"approval.promotion": "off"})
    assert retrain(config, return_state=True).name == "Nothing new"
    monkeypatch.setattr(prefect.runtime.flow_run, "run_count", 2, raising=False)
    with pytest.raises(UserError, match="no version of rlhf-policy is champion yet"):
        retrain(config)


# ------------------------------------------------------------------------- with real, tiny models


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root with a policy of the chain, and a Prefect server beside it."""
    folder = tmp_path_factory.mktemp("retrain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_DATA_ROOT", str(folder / "prefect"))
        patch.delenv("PREFECT_API_URL", raising=False)
        server = servers.start_prefect(standing=True)
        with servers.stopped_at_exit(server):
            servers.wait_until_healthy(server)
            patch.setenv("PREFECT_API_URL", f"{server.url}/api")
            patch.setenv("RLHF_DATA_ROOT", str(folder / "data"))
            done = run("pipeline", "align")
            assert done.returncode == 0, done.stdout + done.stderr
            yield folder / "data"


@pytest.fixture(autouse=True)
def _tracked_there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "root" in request.fixturenames:
        root = request.getfixturevalue("root")
        monkeypatch.setenv("RLHF_DATA_ROOT", str(root))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow/mlflow.db")


def command(module: str, flow: str, **changes: Any) -> list[str]:
    config = with_feedback(override(cpu_demo(), SETTINGS | changes))
    if flow == "align":
        config = override(cpu_demo(), SETTINGS)
    path = Path(os.environ["RLHF_DATA_ROOT"]).with_name(f"{flow}.json")
    path.write_text(config.model_dump_json(), encoding="utf-8")
    return [sys.executable, "-c", COMMAND, module, str(path), flow]


def run(module: str, flow: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Run a flow in a process of its own, as a command does."""
    return subprocess.run(
        command(module, flow, **changes),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=600,
    )


def judge(count: int, start: int = 0) -> list[CandidatePair]:
    """Record what Anna says about so many pairs of the demo; a third is of the random share."""
    lines = (CHECKOUT / "data/samples/preferences.jsonl").read_text(encoding="utf-8").splitlines()
    rows, pairs = [], []
    for number, line in enumerate(lines[start : start + count], start):
        row = json.loads(line)
        replies = (row["chosen"], row["rejected"])[:: 1 if number % 2 else -1]
        pair = CandidatePair(
            pair_id=pair_id(row["prompt"], *replies),
            prompt=row["prompt"],
            reply_a=replies[0],
            reply_b=replies[1],
            purpose="random" if is_reserved(row["prompt"], 0.3) else "chosen",
        )
        pairs.append(pair)
        rows.append(
            Judgment(
                judgment_id="",
                trace_id="",
                queue="",
                pair=pair,
                verdict="a" if number % 2 else "b",
                annotator="anna",
                created_at=datetime(2026, 11, 2, tzinfo=UTC) + timedelta(minutes=number),
            )
        )
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="pairs"), "pairs")
    tracking.record_judgments("feedback", rows, run_id)
    tracking.end_pipeline_run(run_id, "FINISHED", {})
    return pairs


def runs(name: str) -> list[Any]:
    """The pipeline runs called so, the newest first."""
    tracking.set_up()
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("toy").experiment_id
    return client.search_runs([experiment], f"attributes.run_name = '{name}'")


def wait_for(condition: Callable[[], bool], timeout_seconds: float = 600) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_nothing_new_ends_at_once_and_says_so() -> None:
    done = run("retrain", "retrain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 new judgments of 'feedback', in all; queue: rlhf feedback ask" in done.stdout
    assert "A retraining begins at 1" in done.stdout
    assert runs("retrain toy seed 0") == []


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_without_a_champion_it_says_what_to_do() -> None:
    judge(1)
    done = run("retrain", "retrain")
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("refused: no version of rlhf-policy is champion yet")
    assert "promote/on-cpu" in line


@pytest.mark.slow
def test_judgments_become_the_next_policy_though_the_run_is_killed(root: Path) -> None:
    first = tracking.promote("challenger")
    pairs = judge(45)
    held_out = {pair.prompt for pair in pairs if pair.purpose == "random"}
    before = set((root / "runs" / "reward_model").glob("*/result.json"))
    killed = subprocess.Popen(
        command("retrain", "retrain"), cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    wait_for(lambda: set((root / "runs" / "reward_model").glob("*/result.json")) != before)
    psutil.Process(killed.pid).send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    done = run("retrain", "retrain")
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("collect", "clean", "reward_model"):
        assert f"{stage}: reused in" in done.stdout
    assert "random share, judged by people" in done.stdout
    _check_lineage(first, len(pairs))
    _check_data(root, held_out)


def _check_lineage(first: str, num_judgments: int) -> None:
    """The run, the policy and the judged pairs name each other."""
    retrained = runs("retrain toy seed 0")[0]
    tags = retrained.data.tags
    assert retrained.info.status == "FINISHED"
    assert tags["feedback_judgments"] == str(num_judgments)
    assert tags["feedback_annotators"] == "1"
    assert tags["feedback_until"] == "2026-11-02T00:44:00+00:00"
    assert tags["started_from_version"] == first
    version = tracking.version_tags("challenger")
    assert version["version"] == tags["policy_version"] != first
    assert version["compared_with"] == first
    assert version["feedback_snapshot"] == tags["feedback_snapshot"]
    assert version["parent_run"] == retrained.info.run_id
    assert "random_share_accuracy_before" in retrained.data.metrics
    assert "random_share_accuracy_after" in retrained.data.metrics
    assert "anna" not in str(retrained.data.to_dictionary())
    for judgment in tracking.judgments("feedback"):
        shown = mlflow.MlflowClient().get_trace(judgment.trace_id).info.tags
        assert shown["rlhf.used_in_run"] == retrained.info.run_id
        assert shown["rlhf.used_in_version"] == tags["policy_version"]
    last = tracking.last_learned("feedback", "toy")
    assert last is not None
    assert last.run_id == retrained.info.run_id


def _check_data(root: Path, held_out: set[str]) -> None:
    """The random share is held out, and PPO never sees its prompts."""
    newest = max((root / "runs" / "clean").glob("*/prompts"), key=lambda path: path.stat().st_mtime)
    prompts = {
        split: {json.loads(line)["prompt"] for line in (newest / f"{split}.jsonl").open()}
        for split in ("train", "held_out")
    }
    assert held_out <= prompts["held_out"]
    assert not held_out & prompts["train"]


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_afterwards_nothing_is_new_until_somebody_judges() -> None:
    number = len(runs("retrain toy seed 0"))
    assert run("retrain", "retrain").returncode == 0
    assert len(runs("retrain toy seed 0")) == number


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_settings_of_another_pipeline_are_refused() -> None:
    done = run("retrain", "retrain", profile="other")
    assert done.returncode != 0
    assert "these are settings of 'other'" in done.stderr
