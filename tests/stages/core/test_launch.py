"""A stage's process: reuse, refusal, crash, damage, resumption, cancellation.

The stage that really runs here is the tokenizer: it needs documents and ends in a few seconds, or
goes on for long where it is given many.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from stages.core import launch
from stages.core.artifacts import Artifact, content_digest, make_artifact, read_result
from stages.core.config import CleanConfig, CollectConfig, Compute, TokenizerConfig
from stages.core.contracts import CleanInputs, CollectInputs, Datasets, TokenizerInputs
from stages.core.errors import StageCrashedError, StageOutOfMemoryError, UserError
from stages.core.launch import (
    _crash_message,
    _progress_event,
    _waiting_policy,
    finished_result,
    run_stage,
    stage_folder,
    stage_key,
)
from stages.core.schemas import write_jsonl

CONFIG = TokenizerConfig(vocab_size=300)
TEXT = "The door of the mill is green, and the miller likes it well. "


def documents(folder, texts=(TEXT * 3, TEXT * 2)):
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "held_out"):
        write_jsonl(folder / f"{split}.jsonl", [{"text": text} for text in texts])
    return TokenizerInputs(documents=make_artifact("documents", folder))


def long_documents(folder):
    """So many different words that learning the merges takes minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    text = " ".join(f"w{number * 7919}" for number in range(200_000))
    for split in ("train", "held_out"):
        write_jsonl(folder / f"{split}.jsonl", [{"text": text}] * 10)
    return TokenizerInputs(documents=make_artifact("documents", folder))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A data root in which the stage was run once, its inputs, and the lines that it printed."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_DATA_ROOT", str(root))
        inputs, lines, events = documents(root / "documents"), [], []
        result = run_stage(
            CONFIG, inputs, Compute(), on_line=lines.append, on_progress=events.append
        )
    return root, inputs, result


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of that data root as this test's own; the inputs and the stage's folder in it."""
    root, inputs, _ = finished
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    return inputs, stage_folder(CONFIG, inputs)


@pytest.mark.slow
def test_a_stage_that_does_not_train_has_one_process_whatever_the_ranks(tmp_path):
    inputs = documents(tmp_path / "documents", texts=[TEXT] * 2000)
    result = run_stage(CONFIG, inputs, Compute(num_processes=2))
    assert read_result(stage_folder(CONFIG, inputs)) == result


# ------------------------------------------------------------------------------------------- keys


def test_the_key_depends_on_content_and_not_on_paths(tmp_path):
    here, there = documents(tmp_path / "here"), documents(tmp_path / "there" / "deeper")
    assert here.documents.path != there.documents.path
    assert stage_key(CONFIG, here) == stage_key(CONFIG, there)
    changed = documents(tmp_path / "changed", [TEXT * 3, TEXT])
    assert stage_key(CONFIG, here) != stage_key(CONFIG, changed)


def test_the_key_depends_on_settings_stage_and_version(tmp_path):
    class NewerConfig(TokenizerConfig):
        version = 2

    class OtherConfig(TokenizerConfig):
        stage = "other"

    inputs = documents(tmp_path / "documents")
    configs = [CONFIG, CONFIG.model_copy(update={"vocab_size": 301})]
    configs += [NewerConfig(vocab_size=300), OtherConfig(vocab_size=300)]
    keys = {stage_key(config, inputs) for config in configs}
    assert len(keys) == 4
    assert all(len(key) == 12 and int(key, 16) >= 0 for key in keys)


def test_artifacts_inside_lists_and_groups_count_by_content_too(tmp_path):
    def inputs(path, digest):
        artifact = Artifact(kind="sft", path=path, digest=digest)
        clean = stage_key(CleanConfig(), CleanInputs(datasets=Datasets(sft=artifact)))
        return clean, stage_key(CollectConfig(), CollectInputs(sft=(artifact,)))

    assert inputs("a", "1") == inputs("b", "1")
    assert not set(inputs("a", "1")) & set(inputs("a", "2"))


# ---------------------------------------------------------------------------------- a whole run


def test_a_stage_runs_in_its_own_process_and_its_folder_is_complete(finished, monkeypatch):
    root, inputs, result = finished
    monkeypatch.setenv("RLHF_DATA_ROOT", str(root))
    folder = stage_folder(CONFIG, inputs)
    assert folder == root / "runs" / "tokenizer" / result.key
    assert result == finished_result(CONFIG, inputs)
    assert result.metrics["vocab_size"] <= 300
    assert {"spec.json", "tokenizer/tokenizer.json"} <= result.files.keys()
    made = Artifact.model_validate(result.outputs["tokenizer"])
    assert made.path == f"runs/tokenizer/{result.key}/tokenizer"
    assert made.digest == content_digest(made.locate())


def test_another_data_root_and_another_compute_find_the_same_key(copy):
    inputs, folder = copy
    assert finished_result(CONFIG, inputs) is not None
    spec = json.loads((folder / "spec.json").read_text())
    assert spec["compute"] == Compute().model_dump(mode="json")  # recorded, not in the key


def test_a_result_that_another_run_finished_meanwhile_is_not_made_again(copy):
    inputs, folder = copy
    before = (folder / "tokenizer" / "tokenizer.json").stat()
    result = run_stage(CONFIG, inputs, Compute(), on_line=pytest.fail)
    assert result == read_result(folder)
    after = (folder / "tokenizer" / "tokenizer.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.slow
def test_a_damaged_folder_is_made_again_from_nothing(copy):
    inputs, folder = copy
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    (folder / "leftover").write_text("")
    assert finished_result(CONFIG, inputs) is None
    result = run_stage(CONFIG, inputs, Compute(), on_line=str)
    assert "leftover" not in result.files
    assert finished_result(CONFIG, inputs) == result


@pytest.mark.slow
def test_fresh_makes_a_sound_folder_again_with_equal_content(copy):
    inputs, folder = copy
    (folder / "leftover").write_text("")
    before = json.loads((folder / "result.json").read_text())
    again = run_stage(CONFIG, inputs, Compute(), on_line=str, fresh=True)
    assert again.outputs == before["outputs"]
    assert not (folder / "leftover").exists()


@pytest.mark.slow
def test_fresh_does_not_go_on_from_checkpoints_that_lie_aside(tmp_path):
    inputs = documents(tmp_path / "documents")
    aside = stage_folder(CONFIG, inputs).with_suffix(".checkpoints")
    (aside / "checkpoint-5").mkdir(parents=True)
    stopped = {"RLHF_PARENT_PID": "1"}  # before it begins, to see what it would find
    with pytest.raises(StageCrashedError):
        run_stage(CONFIG, inputs, Compute(), on_line=str, environment=stopped)
    assert aside.exists()
    with pytest.raises(StageCrashedError):
        run_stage(CONFIG, inputs, Compute(), on_line=str, environment=stopped, fresh=True)
    assert not aside.exists()


@pytest.mark.slow
def test_an_incomplete_folder_is_kept_to_be_continued(tmp_path):
    inputs = documents(tmp_path / "documents")
    folder = stage_folder(CONFIG, inputs)
    (folder / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint-5" / "state").write_text("half-way")
    (folder / "metrics.jsonl").write_text('{"step": 5}\n')
    seen = []

    def look(line):
        seen.append((folder / "checkpoints" / "checkpoint-5" / "state").exists())

    with pytest.raises(StageCrashedError):  # stopped before it begins, to see what it would find
        run_stage(CONFIG, inputs, Compute(), on_line=look, environment={"RLHF_PARENT_PID": "1"})
    assert seen
    assert all(seen)
    result = run_stage(CONFIG, inputs, Compute(), on_line=str)
    assert "metrics.jsonl" in result.files
    assert not (folder / "checkpoints").exists()  # no longer needed


# --------------------------------------------------------------------------------------- failures


def test_a_refusal_becomes_one_line_without_traceback(tmp_path):
    inputs = documents(tmp_path / "documents", texts=())
    lines = []
    with pytest.raises(UserError) as refusal:
        run_stage(CONFIG, inputs, Compute(), on_line=lines.append)
    message = str(refusal.value)
    assert message.startswith("tokenizer: ")
    assert "train.jsonl: holds no documents; give collect.documents.paths some text" in message
    assert "\n" not in message
    assert not any("Traceback" in line or "::error" in line for line in lines)
    assert finished_result(CONFIG, inputs) is None


@pytest.mark.slow
def test_the_process_ends_with_code_2_when_only_the_user_can_help(tmp_path):
    folder = tmp_path / "runs" / "tokenizer" / "key"
    folder.mkdir(parents=True)
    spec = {
        "stage": "tokenizer",
        "config": CONFIG.model_dump(mode="json"),
        "inputs": documents(tmp_path / "documents", texts=()).model_dump(mode="json"),
        "compute": Compute().model_dump(mode="json"),
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "stages", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    errors = [line for line in done.stdout.splitlines() if line.startswith("::error ")]
    assert len(errors) == 1
    assert "holds no documents" in errors[0]
    assert not (folder / "result.json").exists()


@pytest.mark.slow
def test_a_defect_is_a_crash_that_names_the_log(tmp_path):
    inputs = documents(tmp_path / "documents")
    shutil.rmtree(tmp_path / "documents")  # the stage trusts its inputs to be there
    with pytest.raises(StageCrashedError, match=r"ended with code 1; .*whole log: ") as crash:
        run_stage(CONFIG, inputs, Compute(), on_line=str)
    log = Path(str(crash.value).rsplit("whole log: ", 1)[1])
    assert "Traceback" in log.read_text()


@pytest.mark.slow
def test_a_crash_can_be_retried_while_its_error_is_still_at_hand(tmp_path):
    inputs = documents(tmp_path / "documents")
    away = tmp_path / "away"
    (tmp_path / "documents").rename(away)
    try:
        run_stage(CONFIG, inputs, Compute(), on_line=str)
    except StageCrashedError as error:
        kept = error  # as Prefect keeps it; its traceback holds the frame that held the lock
        away.rename(tmp_path / "documents")
        assert run_stage(CONFIG, inputs, Compute(), on_line=str).stage == "tokenizer"
        assert kept.__traceback__ is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "error"),
    [
        ("bytearray(2**62)", StageOutOfMemoryError),
        ("__import__('torch').empty(2**50)", StageOutOfMemoryError),
        ("__import__('os').kill(__import__('os').getpid(), 9)", StageCrashedError),
        ("1 / 0", StageCrashedError),
    ],
)
def test_want_of_memory_is_told_from_other_crashes(work, error, tmp_path, monkeypatch):
    program = (
        "import sys\nfrom pathlib import Path\nfrom stages import __main__ as stage\n"
        f"stage._run = lambda out_dir: {work}\nsys.exit(stage.main(Path(sys.argv[1])))"
    )
    monkeypatch.setattr(
        launch,
        "_command",
        lambda config, out_dir, compute: [sys.executable, "-c", program, str(out_dir)],
    )
    with pytest.raises(StageCrashedError) as crash:
        run_stage(CONFIG, documents(tmp_path / "documents"), Compute(), on_line=str)
    assert type(crash.value) is error


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-signal.SIGKILL, "was killed"),
        (-signal.SIGSEGV, "was ended by SIGSEGV"),
        (1, "ended with code 1"),
    ],
)
def test_a_crash_says_how_it_ended_and_the_last_thing_said(code, cause):
    message = _crash_message("ppo", code, "/data/ppo.log", ["step 3", "  "])
    assert message == f"ppo {cause}; last line: step 3; whole log: /data/ppo.log"


def test_lines_of_two_processes_mixed_together_are_no_progress_event():
    assert _progress_event('::progress {"step": 1, "total": 2}') == {"step": 1, "total": 2}
    assert _progress_event('::progress {"step": 1, WARNING: something') is None
    assert _progress_event("step 1") is None


def test_threads_spin_unless_the_cores_are_busy_or_the_user_decided(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert _waiting_policy(5.0) == {}
    assert _waiting_policy(90.0) == {"GOMP_SPINCOUNT": "1000"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert _waiting_policy(90.0) == {}


# ------------------------------------------------------------------------------- locks and kills


def test_a_folder_that_another_run_works_on_is_left_alone(tmp_path):
    inputs = documents(tmp_path / "documents")
    folder = stage_folder(CONFIG, inputs)
    folder.mkdir(parents=True)
    (folder / "half-done").write_text("")
    is_locked = pytest.raises(UserError, match=r"another run is making .*; wait for it or cancel")
    with FileLock(folder.with_suffix(".lock")), is_locked:
        run_stage(CONFIG, inputs, Compute(), on_line=pytest.fail, fresh=True)
    assert (folder / "half-done").exists()


def stage_process(folder):
    """The running process of the stage, waited for."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in psutil.process_iter(["cmdline"]):
            if process.info["cmdline"] and process.info["cmdline"][-2:] == ["stages", str(folder)]:
                return process
        time.sleep(0.05)
    pytest.fail("the stage did not start")


@pytest.fixture
def running(tmp_path):
    """A stage at work in a flow's process: (flow, stage, inputs). Both are gone afterwards."""
    inputs = long_documents(tmp_path / "documents")
    code = (
        "import sys\n"
        "from stages.core.config import Compute, TokenizerConfig\n"
        "from stages.core.contracts import TokenizerInputs\n"
        "from stages.core.launch import run_stage\n"
        "inputs = TokenizerInputs.model_validate_json(sys.argv[1])\n"
        "run_stage(TokenizerConfig(vocab_size=300), inputs, Compute())\n"
    )
    command = [sys.executable, "-c", code, inputs.model_dump_json()]
    flow = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    stage = stage_process(stage_folder(CONFIG, inputs))
    yield flow, stage, inputs
    for process in (psutil.Process(flow.pid) if flow.poll() is None else None, stage):
        with contextlib.suppress(psutil.NoSuchProcess, AttributeError):
            process.kill()
    flow.communicate()


def wait_for_imports(stage):
    """Until the stage has read its documents, which is well after it has asked to die with its
    parent."""
    deadline = time.monotonic() + 60
    while stage.memory_info().rss < 250 * 2**20 and time.monotonic() < deadline:
        time.sleep(0.05)


def is_gone(process, seconds=15.0):
    with contextlib.suppress(psutil.TimeoutExpired):
        process.wait(seconds)
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_killed_stage_is_a_crash_and_its_flow_lives(running):
    flow, stage, _ = running
    wait_for_imports(stage)
    stage.kill()
    _, errors = flow.communicate(timeout=30)
    assert flow.returncode == 1
    assert "StageCrashedError: tokenizer was killed;" in errors


@pytest.mark.slow
def test_a_stage_dies_with_a_killed_flow_and_frees_its_folder(running):
    flow, stage, inputs = running
    wait_for_imports(stage)
    flow.kill()
    assert is_gone(stage)
    assert finished_result(CONFIG, inputs) is None
    with FileLock(stage_folder(CONFIG, inputs).with_suffix(".lock"), timeout=0):
        pass


@pytest.mark.slow
def test_a_stage_whose_flow_was_killed_before_it_began_does_not_begin(tmp_path):
    inputs = documents(tmp_path / "documents")
    with pytest.raises(StageCrashedError, match="the process that started this stage is gone"):
        run_stage(CONFIG, inputs, Compute(), on_line=str, environment={"RLHF_PARENT_PID": "1"})


@pytest.mark.slow
def test_a_cancelled_flow_ends_the_stage(tmp_path):
    inputs = long_documents(tmp_path / "documents")
    folder = stage_folder(CONFIG, inputs)
    stages = []

    def cancel():
        stages.append(stage_process(folder))
        wait_for_imports(stages[0])
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(KeyboardInterrupt):
        run_stage(CONFIG, inputs, Compute(), on_line=str)
    canceller.join()
    assert is_gone(stages[0])
    with FileLock(folder.with_suffix(".lock"), timeout=0):
        pass
