"""What ``rlhf gc`` finds and removes, with a real MLflow store."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mlflow
import pytest
from filelock import FileLock
from rich.console import Console

from flows import cli, gc, waste
from flows.servers import free_port
from stages.core import tracking
from stages.core.artifacts import StageResult, folder_files, read_result, write_result
from stages.core.config import CollectConfig, PipelineConfig
from stages.core.contracts import CollectInputs
from stages.core.errors import UserError
from stages.core.launch import finished_result, stage_key

DAY = 86400.0
A, B, C, D = (letter * 12 for letter in "abcd")


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs: making its tables takes seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def client(data_root: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A store of the test's own, in which nobody else's runs are."""
    (data_root / "mlflow").mkdir()
    store = data_root / "mlflow" / "mlflow.db"
    shutil.copyfile(empty_store, store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    tracking.set_up()
    return mlflow.MlflowClient()


@pytest.fixture
def make(data_root: Path) -> Callable[..., Path]:
    """A function that makes a stage's folder with its siblings, ten days old."""

    def make(
        stage: str, key: str, inputs: Sequence[str] = (), *, run: str = "", complete: bool = True
    ) -> Path:
        folder = data_root / "runs" / stage / key
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "weights").write_bytes(b"w" * 1000)
        of_inputs = [{"kind": "model", "path": path, "digest": "d"} for path in inputs]
        (folder / "spec.json").write_text(json.dumps({"inputs": {"models": of_inputs}}))
        folder.with_suffix(".log").write_text("a line\n")
        folder.with_suffix(".lock").touch()
        if complete:
            result = StageResult(
                stage=stage,
                key=key,
                outputs={},
                metrics={},
                files=folder_files(folder),
                tracking_run_id=run,
            )
            write_result(folder, result)
        age(data_root / "runs" / stage, 10)
        return folder

    return make


def age(path: Path, days: float) -> None:
    when = time.time() - days * DAY
    for file in [path, *path.rglob("*")]:
        os.utime(file, (when, when))


@pytest.fixture
def run(client: mlflow.MlflowClient) -> Callable[..., str]:
    """A function that records a pipeline run with finished stages (stage, key)."""

    def run(*results: tuple[str, str], status: str = "FINISHED", experiment: str = "demo") -> str:
        parent = tracking.start_pipeline_run(PipelineConfig(profile=experiment), "a run")
        for stage, key in results:
            tags = {"mlflow.parentRunId": parent, "stage_key": key}
            experiment_id = client.get_run(parent).info.experiment_id
            made = client.create_run(experiment_id, tags=tags, run_name=stage).info.run_id
            client.set_terminated(made, "FINISHED")
        client.update_run(parent, status=status)
        return parent

    return run


def listed(keep_runs: int = 5, older_than_days: float = 7) -> list[waste.Waste]:
    """What goes."""
    return gc.find(keep_runs, older_than_days)[0]


def found(keep_runs: int = 5, older_than_days: float = 7) -> dict[str, str]:
    """Why what goes, by its name."""
    return {"/".join(item.path.parts[-2:]): item.why for item in listed(keep_runs, older_than_days)}


def sweep(keep_runs: int = 5, older_than_days: float = 7) -> int:
    removed, left = waste.remove(listed(keep_runs, older_than_days))
    assert left == []
    return removed


def test_what_no_run_or_only_old_runs_have_goes_with_its_siblings(
    data_root: Path, make: Callable[..., Path], run: Callable[..., str], client: mlflow.MlflowClient
) -> None:
    for key in (A, B, C):
        make("sft", key)
    make("sft", D, complete=False).with_suffix(".checkpoints").mkdir()
    run(("sft", A))
    deleted = run(("sft", C))
    client.delete_run(deleted)
    run(("sft", B))
    assert found() == {
        f"sft/{C}": "no run has it",
        f"sft/{D}": "interrupted; no run has it",
    }
    assert found(keep_runs=1)[f"sft/{A}"] == "only older runs have it"
    assert sweep(keep_runs=1) > 3000
    names = {path.name for path in (data_root / "runs" / "sft").iterdir()}
    assert names == {B, f"{B}.log", f"{B}.lock"}
    assert read_result(data_root / "runs" / "sft" / B) is not None


def test_results_outside_the_pipeline_go_as_the_others_do(
    make: Callable[..., Path], run: Callable[..., str]
) -> None:
    make("sample_pairs", A)
    make("judge_pairs", B)
    run(("judge_pairs", B), experiment="feedback-pairs")
    assert found() == {f"sample_pairs/{A}": "no run has it"}


def test_each_experiment_keeps_its_newest_runs(
    make: Callable[..., Path], run: Callable[..., str]
) -> None:
    for key in (A, B):
        make("sft", key)
    run(("sft", A), experiment="one")
    run(("sft", B), experiment="two")
    assert found(keep_runs=1) == {}
    assert len(found(keep_runs=0)) == 2


def test_what_a_kept_result_was_made_from_is_kept(
    data_root: Path, make: Callable[..., Path], run: Callable[..., str]
) -> None:
    make("clean", A)
    make("pretrain", B, [f"runs/clean/{A}/documents"])
    make("sft", C, [str(data_root / "runs" / "pretrain" / B / "model"), "/somewhere/else"])
    run(("sft", C))
    assert found() == {}


@pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED"])
def test_runs_at_work_and_suspended_ones_keep_everything(
    status: str, make: Callable[..., Path], run: Callable[..., str]
) -> None:
    make("clean", A)
    make("ppo", B, [f"runs/clean/{A}/prompts"], complete=False)
    run(("ppo", B), status=status)
    assert found(keep_runs=0) == {}


def test_a_model_with_an_alias_keeps_its_ancestors_even_of_a_run_in_the_trash(
    make: Callable[..., Path], run: Callable[..., str], client: mlflow.MlflowClient
) -> None:
    make("sft", A)
    policy = make("ppo", B, [f"runs/sft/{A}/model"])
    make("ppo", C)
    origin, other = run(("ppo", B)), run(("ppo", C))
    for run_id in (origin, other):
        tags = {"parent_run": run_id, "policy_digest": run_id}
        tracking.register_policy(run_id, policy / "model", tags)
    client.set_registered_model_alias("rlhf-policy", "shown-to-the-press", "1")
    client.delete_registered_model_alias("rlhf-policy", "challenger")
    client.delete_run(origin)
    assert set(found(keep_runs=0)) == {f"ppo/{C}"}


def test_an_alias_whose_run_is_gone_for_good_stops_everything(
    make: Callable[..., Path], run: Callable[..., str]
) -> None:
    policy = make("ppo", A)
    tracking.register_policy(run(("ppo", A)), policy / "model", {"parent_run": "f" * 32})
    with pytest.raises(UserError, match=r"rlhf-policy@challenger came from.*nothing was removed"):
        gc.find(5, 0)


def test_fresh_things_and_what_they_were_made_from_stay(
    make: Callable[..., Path], run: Callable[..., str]
) -> None:
    make("sft", A)
    fresh = make("ppo", B, [f"runs/sft/{A}/model"])
    run()
    os.utime(fresh / "result.json")
    assert found() == {}
    assert set(found(older_than_days=0)) == {f"sft/{A}", f"ppo/{B}"}


def test_a_folder_that_a_process_works_in_stays_with_its_inputs(
    make: Callable[..., Path], run: Callable[..., str]
) -> None:
    make("sft", A)
    folder = make("ppo", B, [f"runs/sft/{A}/model"], complete=False)
    run()
    with FileLock(folder.with_suffix(".lock")):
        assert found() == {}
    going = listed()
    assert len(going) == 2
    with FileLock(folder.with_suffix(".lock")):  # taken up between listing and removing
        _, left = waste.remove(going)
    assert [item.path for item in left] == [folder]
    assert folder.exists()


def test_a_result_that_was_finished_since_it_was_listed_stays(
    make: Callable[..., Path], run: Callable[..., str]
) -> None:
    folder = make("sft", A)
    run()
    going = listed()
    os.utime(folder / "result.json")
    assert waste.remove(going) == (0, going)
    assert read_result(folder) is not None


def test_a_result_that_a_run_has_reused_since_it_was_listed_stays(
    data_root: Path, make: Callable[..., Path], run: Callable[..., str]
) -> None:
    config, inputs = CollectConfig(), CollectInputs()
    folder = make("collect", stage_key(config, inputs))
    fetched = make("sft", A)
    run()
    going = listed()
    assert len(going) == 2
    assert finished_result(config, inputs) is not None
    assert tracking.fetch("sft", A) is not None
    assert waste.remove(going) == (0, going)
    assert read_result(folder) is not None
    assert read_result(fetched) is not None


@pytest.mark.parametrize("step", ["_set_aside", "_delete"])
def test_a_crash_leaves_no_half_result_and_the_next_try_finishes(
    step: str,
    data_root: Path,
    make: Callable[..., Path],
    run: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make("sft", A)
    run()

    def crash(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(waste, step, crash)
        with pytest.raises(KeyboardInterrupt):
            sweep()
    assert not (folder / "result.json").exists()
    assert sweep() > 0
    assert list((data_root / "runs" / "sft").iterdir()) == []


def test_leftovers_go_and_what_is_in_use_or_not_ours_stays(
    data_root: Path, make: Callable[..., Path], run: Callable[..., str]
) -> None:
    run(("sft", A))
    make("sft", A).with_suffix(".checkpoints").mkdir()
    runs = data_root / "runs"
    configs = [runs / "configs" / f"demo-2026010{day}-000000.json" for day in range(1, 5)]
    downloads = data_root / "cache" / "huggingface" / "hub"
    ours = [runs / "sft" / ".fetch-x" / "f", configs[0], configs[1], downloads / "models--m" / "f"]
    theirs = [runs / "sft" / "notes" / "f", runs / "mine" / "f", runs / "configs" / "mine.json"]
    for path in [*ours, *theirs, *configs]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    age(data_root / "runs", 10)
    age(downloads, 10)
    linked = runs / "sft" / B
    linked.symlink_to(runs / "mine")
    young = runs / "sft" / ".fetch-y" / "f"
    young.parent.mkdir()
    young.touch()  # perhaps being fetched
    reasons = found(keep_runs=2, older_than_days=0)
    assert reasons[f"sft/{A}.checkpoints"] == "checkpoints of a finished stage"
    assert len(reasons) == len(ours) + 1
    sweep(keep_runs=2, older_than_days=0)
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in [*theirs, *configs[2:], linked, young])
    assert read_result(runs / "sft" / A) is not None


def test_an_mlflow_that_does_not_know_these_results_is_refused(
    make: Callable[..., Path], run: Callable[..., str]
) -> None:
    make("sft", A, run="0" * 32)
    with pytest.raises(UserError, match="knows none of the runs"):
        gc.find(5, 7)
    run(("sft", B))
    with pytest.raises(UserError, match="is MLFLOW_TRACKING_URI the one"):
        gc.find(5, 7)


def test_what_another_mlflow_tracks_is_kept_with_its_inputs_and_named(
    make: Callable[..., Path],
    run: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = run(("sft", A))
    make("sft", A, run=known)
    make("clean", B)
    make("sft", C, [f"runs/clean/{B}/documents"], run="0" * 32)
    make("clean", D)
    assert found() == {f"clean/{D}": "no run has it"}
    gc.clean_up(Console(width=200), 5, 7, apply=False)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("Kept, since another MLflow than sqlite:///")
    assert line.endswith(f": runs/sft/{C}")
    make("ppo", B, [f"runs/sft/{C}/model"], run=run(("ppo", B)))
    gc.clean_up(Console(width=200), 5, 7, apply=False)
    assert "Kept" not in capsys.readouterr().out  # needed anyway


def test_without_mlflow_nothing_is_removed_and_no_password_is_shown(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make("sft", A)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "other")
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:hunter2@127.0.0.1:{port}")
    with pytest.raises(UserError, match="cannot be read.*nothing was removed") as refused:
        gc.find(0, 0)
    assert f"127.0.0.1:{port}" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert folder.exists()


def test_the_command_lists_then_removes_what_mlflow_can_give_back(
    data_root: Path,
    make: Callable[..., Path],
    client: mlflow.MlflowClient,
    run: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PREFECT_HOME", str(data_root / "prefect"))
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    folder = make("sft", A)
    parent = run(("sft", A))
    (maker,) = client.search_runs(
        [client.get_run(parent).info.experiment_id], "tags.stage_key != ''"
    )
    client.log_artifacts(maker.info.run_id, str(folder), "stage")
    result = read_result(folder)
    assert result is not None
    client.log_dict(maker.info.run_id, result.model_dump(mode="json"), "stage/result.json")
    assert cli.main(["gc", "--keep-runs", "0"]) == 0
    listed = capsys.readouterr().out
    assert f"runs/sft/{A}" in listed
    assert "10 days  only older runs have it *" in listed
    assert "* MLflow has a copy" in listed
    assert "Nothing was removed; --apply does it." in listed
    assert folder.exists()
    assert cli.main(["gc", "--keep-runs", "0", "--apply"]) == 0
    assert "Removed 1." in capsys.readouterr().out
    assert not folder.exists()
    assert cli.main(["gc", "--keep-runs", "0"]) == 0
    assert capsys.readouterr().out == "Nothing to remove.\n"
    assert tracking.fetch("sft", A) is not None
    with pytest.raises(SystemExit):
        cli.main(["gc", "--older-than", "-1"])


def test_a_snapshot_goes_that_no_kept_run_collected_from(
    data_root: Path, make: Callable[..., Path], run: Callable[..., str]
) -> None:
    source = data_root / "cache" / "sources" / "0123456789ab"
    for name in (A, B, C, ".part"):
        (source / name).mkdir(parents=True)
        (source / name / "rows.jsonl").write_text("{}\n")
        (source / name / "snapshot.json").write_text("{}")
    (source.parent / ".fetch-xyz").mkdir()
    (source.parent / ".fetch-xyz" / "spec.json").write_text("{}")
    make("collect", D, [f"cache/sources/0123456789ab/{A}/rows.jsonl"])
    make("clean", B, [f"runs/collect/{D}/sft"])
    run(("clean", B))
    age(data_root / "cache", 10)
    os.utime(source / C / "snapshot.json")  # as a run does that takes it
    assert found() == {
        f"0123456789ab/{B}": "no kept run collected from it",
        "0123456789ab/.part": "an interrupted fetch",
        "sources/.fetch-xyz": "an interrupted fetch",
    }
    sweep()
    assert {path.name for path in source.iterdir()} == {A, C}
