"""``rlhf forget``, from judgments over a snapshot and real stages to a registered policy."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest

from flows import cli, forget_command, withdrawal
from stages.core import tracking
from stages.core.artifacts import StageResult, folder_files, write_result
from stages.core.config import CleanConfig, CollectConfig, Compute, PipelineConfig
from stages.core.contracts import CleanInputs, Datasets
from stages.core.fetch.__main__ import fetch_all
from stages.core.launch import run_stage, stage_folder

Forget = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Trained:
    """A pipeline run on judgments of anna and ben."""

    experiment: str
    run_id: str
    version: str
    snapshot: Path
    collect: Path
    clean: Path


@pytest.fixture
def forget(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Forget:
    """Runs ``rlhf forget …`` and returns its exit code, output and errors."""
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    tracking.last_runs(1)  # makes the tables of the store, which takes seconds

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["forget", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., str]:
    """A function: judgments of these annotators in an experiment of its own, which is returned."""

    def judge(*annotators: str) -> str:
        experiment = f"feedback-{uuid.uuid4().hex[:8]}"
        rows = [
            {"prompt": f"How many legs has animal number {n} in the list that {name} was shown?",
             "chosen": f"It has {n} legs, as its picture shows.", "rejected": "That is unknown.",
             "annotator": name}
            for name in annotators
            for n in range(4)
        ]  # fmt: skip
        path = tmp_path / f"{experiment}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        assert cli.main(["feedback", "import", str(path), "--experiment", experiment]) == 0
        return experiment

    return judge


@pytest.fixture
def train(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Trained]:
    """A function: snapshot, collect and clean for real, a reward model and a policy in name."""

    def train(experiment: str) -> Trained:
        sources = {"feedback": [{"experiment": experiment}], "held_out_share": 0.0}
        collect = CollectConfig.model_validate({"preferences": sources})
        inputs = fetch_all(collect)
        run_id = tracking.start_pipeline_run(PipelineConfig(profile="forget"), "forget seed 0")
        monkeypatch.setenv(tracking.PARENT_RUN_VARIABLE, run_id)
        collected = run_stage(collect, inputs, Compute(), on_line=print)
        datasets = CleanInputs(datasets=Datasets.model_validate(collected.outputs))
        run_stage(CleanConfig(), datasets, Compute(), on_line=print)
        clean = stage_folder(CleanConfig(), datasets)
        model = data_root / "runs" / "reward_model" / ("a" * 12)
        model.mkdir(parents=True)
        spec = {"preferences": {"kind": "preferences", "digest": "d",
                                "path": f"runs/clean/{clean.name}/preferences"}}  # fmt: skip
        (model / "spec.json").write_text(json.dumps({"inputs": spec}))
        facts = {"outputs": {}, "metrics": {}, "files": folder_files(model)}
        write_result(model, StageResult(stage="reward_model", key=model.name, **facts))
        (tmp_path / "policy").mkdir(exist_ok=True)
        tags = {"parent_run": run_id, "policy_digest": run_id}
        version = tracking.register_policy(run_id, tmp_path / "policy", tags)
        tracking.promote(version)
        tracking.end_pipeline_run(run_id, "FINISHED", {})
        return Trained(
            experiment=experiment,
            run_id=run_id,
            version=version,
            snapshot=inputs.preferences[0].locate().parent,
            collect=stage_folder(collect, inputs),
            clean=clean,
        )

    return train


@pytest.mark.slow
def test_everything_that_a_reviewer_said_goes_and_what_learned_from_it_is_listed(
    forget: Forget, judge: Callable[..., str], train: Callable[[str], Trained], data_root: Path
) -> None:
    made = train(judge("anna", "ben"))
    alias = tracking.pseudonym(made.experiment, "anna")
    assert alias in (made.collect / "preferences" / "train.jsonl").read_text()
    asked = ("anna", "--experiment", made.experiment)

    code, listed, _ = forget(*asked)
    assert code == 0
    for part in (
        f"anna, {alias} in files",
        "4 judgments on the review pages",
        f"cache/sources/{made.snapshot.parent.name}/{made.snapshot.name}: a snapshot of judgments",
        f"runs/collect/{made.collect.name}: data with their judgments",
        f"runs/clean/{made.clean.name}: data with their judgments",
        "a copy of such data among the artifacts of MLflow run",
        f"runs/reward_model/{'a' * 12}",
        "run forget seed 0 of ",
        f"rlhf-policy version {made.version} (challenger, champion)",
        "Nothing was removed; --apply does it.",
        "rlhf rollback makes the previous champion champion again",
    ):
        assert part in listed
    assert made.snapshot.exists()

    mlflow.MlflowClient().update_run(made.run_id, status="RUNNING")
    code, _, error = forget(*asked, "--apply")
    assert code == 2
    assert "forget seed 0: is running on data with these judgments: wait for its end" in error
    assert made.collect.exists()
    assert len(tracking.judgments(made.experiment)) == 8
    mlflow.MlflowClient().set_terminated(made.run_id, "FINISHED")

    code, applied, _ = forget(*asked, "--apply")
    assert code == 0
    assert "Removed: 4 judgments, 1 snapshots, 4 results with copies" in applied
    assert not made.snapshot.exists()
    assert not made.collect.exists()
    assert not made.clean.exists()
    assert (data_root / "runs" / "reward_model" / ("a" * 12)).exists()
    assert {one.annotator for one in tracking.judgments(made.experiment)} == {"ben"}
    assert tracking.fetch("collect", made.collect.name) is None
    assert tracking.version_tags(made.version)["withdrawn_annotators"] == alias
    left = [path for path in data_root.rglob("*") if path.is_file()]
    assert not [path for path in left if alias.encode() in path.read_bytes()]

    code, again, _ = forget(*asked, "--apply")
    assert code == 0
    assert "Nothing is left to remove." in again
    assert f"rlhf-policy version {made.version} (challenger, champion)" in again


def test_a_removal_that_is_killed_is_finished_by_the_next(
    forget: Forget, judge: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = judge("anna", "ben")
    removing = tracking.remove_reviewer

    def killed(experiment: str, reviewer: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(withdrawal.tracking, "remove_reviewer", killed)
    assert forget("Anna ", "--experiment", experiment, "--apply")[0] == cli.INTERRUPTED
    monkeypatch.setattr(withdrawal.tracking, "remove_reviewer", removing)
    code, text, _ = forget("Anna ", "--experiment", experiment, "--apply")
    assert code == 0
    assert "Removed: 4 judgments" in text
    assert {one.annotator for one in tracking.judgments(experiment)} == {"ben"}


def test_an_unknown_reviewer_is_one_line_with_the_nearest_name(
    forget: Forget, judge: Callable[..., str]
) -> None:
    experiment = judge("anna")
    code, _, error = forget("ana", "--experiment", experiment)
    assert code == 2
    assert error == (
        f"rlhf: there is nothing by 'ana' in '{experiment}' (any more); did you mean 'anna'?\n"
    )
    code, _, error = forget("anna", "--experiment", "nowhere")
    assert code == 2
    assert "there is no MLflow experiment called 'nowhere'" in error


def test_without_a_server_it_does_not_wait(forget: Forget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    code, _, error = forget("anna")
    assert code == 2
    assert "does not answer" in error
    assert forget_command.FEEDBACK == "feedback"


def test_runs_that_name_a_snapshot_learned_from_it(
    forget: Forget, judge: Callable[..., str]
) -> None:
    """The run was another machine's, whose data folder is not here; this one made a snapshot of
    the same judgments."""
    experiment = judge("anna")
    collect = CollectConfig.model_validate(
        {"preferences": {"feedback": [{"experiment": experiment}], "held_out_share": 0.0}}
    )
    folder = fetch_all(collect).preferences[0].locate().parent
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="forget"), "of another machine")
    tracking.tag_run(run_id, {"feedback_snapshot": f"0123456789ab,{folder.name}"})
    tracking.end_pipeline_run(run_id, "FINISHED", {})
    code, text, _ = forget("anna", "--experiment", experiment)
    assert code == 0
    assert "run of another machine of " in text
