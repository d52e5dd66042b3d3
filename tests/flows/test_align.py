"""The whole chain as a user runs it, at toy size: reuse, repair, and kill -9 at the worst time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows import servers

pytestmark = pytest.mark.slow

BEFORE_PPO = ["collect", "clean", "tokenizer", "pretrain", "sft", "reward_model", "guard_model",
              "reward_model_card", "classifier"]  # fmt: skip
STAGES = [*BEFORE_PPO, "ppo", "evaluate"]
SETTINGS = {
    "collect.documents.max_records": 300,
    "collect.sft.max_records": 120,
    "collect.preferences.max_records": 120,
    "collect.labelled.max_records": 60,
    "classifier.num_epochs": 0.5,
    "tokenizer.vocab_size": 512,
    "pretrain.max_steps": 20,
    "pretrain.model_overrides": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
    "ppo.total_episodes": 192,
    "ppo.batch_size": 16,
    "ppo.num_mini_batches": 2,
    "ppo.save_updates": 1,
    "ppo.max_completion_length": 12,
    "reward_model.num_statistics_samples": 16,
    "guard_model.num_statistics_samples": 16,
    "reward_model_card.num_bootstrap_samples": 100,
    "reward_model_card.gate.action": "warn",  # so little data teaches it nothing
    "evaluate.num_prompts": 12,
    "evaluate.max_completion_length": 12,
    "evaluate.num_bootstrap_samples": 100,
    "compute.num_threads": 1,
}


def command(**changes: object) -> list[str]:
    settings = SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    options = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    run = [sys.executable, "-m", "flows", "run", "--profile", "cpu-demo"]
    return [*run, *(part for option in options for part in ("--set", option))]


def run(root: Path, *options: str, **changes: object) -> dict[str, str]:
    """Run the pipeline with its state under ``root``; return how each stage ended."""
    done = subprocess.run(
        [*command(**changes), *options],
        env=os.environ | {"RLHF_DATA_ROOT": str(root)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    states = {}
    for line in done.stdout.splitlines():
        stage, _, rest = line.partition(": ")
        if stage in STAGES and rest.startswith(("done in", "reused in", "fetched in")):
            states[stage] = rest.split()[0]
    return states


def policy_digest(root: Path) -> str:
    (result,) = (root / "runs" / "ppo").glob("*/result.json")
    return json.dumps(json.loads(result.read_text())["outputs"], sort_keys=True)


@pytest.fixture(scope="module", autouse=True)
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Prefect server for all runs: that each can start its own is tested with the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_DATA_ROOT", str(tmp_path_factory.mktemp("prefect")))
        patch.delenv("PREFECT_API_URL", raising=False)
        server = servers.start_prefect(standing=True)
        with servers.stopped_at_exit(server):
            servers.wait_until_healthy(server)
            patch.setenv("PREFECT_API_URL", f"{server.url}/api")
            yield


@pytest.fixture(scope="module")
def before_ppo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which everything before PPO is finished."""
    root = tmp_path_factory.mktemp("before-ppo") / "data"
    states = run(root, "--until", "classifier")
    assert states == dict.fromkeys(BEFORE_PPO, "done")
    return root


@pytest.fixture(scope="module")
def straight(before_ppo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root after an undisturbed run."""
    root = tmp_path_factory.mktemp("straight") / "data"
    shutil.copytree(before_ppo, root)
    states = run(root)
    assert states == dict.fromkeys(BEFORE_PPO, "reused") | {"ppo": "done", "evaluate": "done"}
    return root


def test_the_report_and_the_registered_policy_are_there(straight):
    (report,) = (straight / "runs" / "evaluate").glob("*/report/report.html")
    assert "base" in report.read_text()
    assert "http://" not in report.read_text()


def test_a_second_run_reuses_every_stage(straight):
    started = time.monotonic()
    assert run(straight) == dict.fromkeys(STAGES, "reused")
    assert time.monotonic() - started < 90  # 30 s on a quiet machine


def test_the_gate_stops_the_run_before_ppo_until_it_is_told_to_warn(before_ppo, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(before_ppo, root)
    gate = {"reward_model_card__gate__action": "stop", "reward_model_card__gate__min_accuracy": 1.0}
    done = subprocess.run(
        command(**gate),
        env=os.environ | {"RLHF_DATA_ROOT": str(root)},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if "does not pass its gate" in line]
    assert "reward_model_card.gate.action=warn" in line
    assert "Traceback" not in done.stdout + done.stderr
    assert not (root / "runs" / "ppo").exists()


def test_a_changed_setting_makes_only_what_depends_on_it(straight, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(straight, root)
    changes = {"ppo__kl_coef": 0.5, "ppo__total_episodes": 16}
    states = run(root, **changes)
    assert states == dict.fromkeys(BEFORE_PPO, "reused") | {"ppo": "done", "evaluate": "done"}


@pytest.mark.parametrize("store", ["with artifacts", "empty"])
def test_a_damaged_stage_is_fetched_or_made_again(store, straight, tmp_path, monkeypatch):
    if store == "empty":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    root = tmp_path / "data"
    shutil.copytree(straight, root)
    (weights,) = (root / "runs" / "sft").glob("*/model/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    shutil.rmtree(root / "runs" / "tokenizer")
    state = "done" if store == "empty" else "fetched"
    assert run(root) == dict.fromkeys(STAGES, "reused") | {"tokenizer": state, "sft": state}


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)


def ppo_process(flow: psutil.Process) -> psutil.Process:
    return next(
        child
        for child in flow.children(recursive=True)
        if "stages" in child.cmdline() and "/ppo/" in child.cmdline()[-1]
    )


@pytest.mark.parametrize("victim", ["ppo", "flow"])
def test_a_killed_run_ends_like_an_undisturbed_one(victim, before_ppo, straight, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(before_ppo, root)
    process = subprocess.Popen(
        [*command(), "--until", "ppo"],
        env=os.environ | {"RLHF_DATA_ROOT": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    flow = psutil.Process(process.pid)
    wait_for(lambda: any((root / "runs").glob("ppo/*/checkpoints/update-000003.pt")))
    stage = ppo_process(flow)
    kill(stage if victim == "ppo" else flow)
    output, _ = process.communicate(timeout=400)
    wait_for(lambda: not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE)
    if victim == "flow":
        assert not any((root / "runs").glob("ppo/*/result.json"))
        run(root, "--until", "ppo")
    else:
        assert process.returncode == 0, output
        assert "ppo: trying again" in output
    assert policy_digest(root) == policy_digest(straight)
    (log,) = (root / "runs" / "ppo").glob("*.log")
    assert "continuing after update" in log.read_text()


def wait_for(condition: Callable[[], bool], timeout_seconds: float = 200) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
