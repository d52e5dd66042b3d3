"""Results of other runs: named in every way that a user may, fetched with their digests or not at
all."""

import shutil
from pathlib import Path

import pytest

from stages.core import tracking
from stages.core.artifact_root import artifact_root
from stages.core.artifacts import StageResult, data_root, folder_files, read_result, write_result
from stages.core.config import CleanConfig, JudgePairsConfig, PipelineConfig
from stages.core.errors import UserError
from stages.core.tracking import registry


@pytest.fixture
def finish(parent, inputs, monkeypatch):
    """Runs the stage clean with a key of the test's own; returns its folder and its run."""
    monkeypatch.setenv(tracking.PARENT_RUN_VARIABLE, parent)

    def run(key, uploaded=True):
        folder = data_root() / "runs" / "clean" / key
        (folder / "sft").mkdir(parents=True)
        (folder / "sft" / "train.jsonl").write_text(f'{{"prompt": "{key}"}}\n')
        with tracking.stage_run("clean", key, CleanConfig(), inputs) as run_id:
            result = StageResult(
                stage="clean",
                key=key,
                outputs={},
                metrics={"kept": 9.0},
                files=folder_files(folder),
                tracking_run_id=run_id,
            )
            if uploaded:
                tracking.log_result(folder, result)
            write_result(folder, result)
        return folder, run_id

    return run


@pytest.fixture
def other_machine(tmp_path_factory, monkeypatch):
    """A function that goes on with an empty data root; returns it."""

    def move():
        root = tmp_path_factory.mktemp("other-machine")
        monkeypatch.setenv("RLHF_DATA_ROOT", str(root))
        return root

    return move


def artifacts(client, run_id):
    path = client.get_run(run_id).info.artifact_uri.removeprefix("mlflow-artifacts:/")
    return Path(artifact_root(tracking.set_up())) / path / "stage"


# ------------------------------------------------------------------------------------ by key


def test_another_machine_fetches_the_folder_by_its_key(finish, other_machine):
    folder, run_id = finish("aaaaaaaaaaa1")
    root = other_machine()
    result = tracking.fetch("clean", "aaaaaaaaaaa1")
    fetched = root / "runs" / "clean" / "aaaaaaaaaaa1"
    assert result == read_result(fetched)
    assert result.tracking_run_id == run_id
    assert folder_files(fetched) == folder_files(folder)


def test_what_is_here_is_not_fetched(finish, client):
    folder, run_id = finish("aaaaaaaaaaa2")
    shutil.rmtree(artifacts(client, run_id))
    assert tracking.fetch("clean", "aaaaaaaaaaa2") == read_result(folder)


def test_a_damaged_folder_is_fetched_anew(finish):
    folder, _ = finish("aaaaaaaaaaa3")
    (folder / "sft" / "train.jsonl").write_text("damaged")
    assert tracking.fetch("clean", "aaaaaaaaaaa3") is not None
    assert "aaaaaaaaaaa3" in (folder / "sft" / "train.jsonl").read_text()


def test_of_one_pipeline_run_no_other_ones_result_is_taken(finish, parent, other_machine):
    finish("aaaaaaaaaaa4")
    assert tracking.has_begun_here(parent, "clean", "aaaaaaaaaaa4")
    assert not tracking.has_begun_here(parent, "sft", "aaaaaaaaaaa4")
    other = tracking.start_pipeline_run(PipelineConfig(profile="other"), "another")
    assert tracking.fetch("clean", "aaaaaaaaaaa4", other) is None
    assert not tracking.has_begun_here(other, "clean", "aaaaaaaaaaa4")
    root = other_machine()
    assert tracking.fetch("clean", "aaaaaaaaaaa4", other) is None
    assert tracking.fetch("clean", "aaaaaaaaaaa4", parent) is not None
    assert (root / "runs" / "clean" / "aaaaaaaaaaa4").exists()


@pytest.mark.parametrize("damage", ["changed", "missing", "additional", "no mark"])
def test_a_corrupted_artifact_is_refused(damage, finish, other_machine, client):
    key = f"bbbbbbbb{len(damage):04}"
    _, run_id = finish(key)
    stored = artifacts(client, run_id)
    if damage == "changed":
        (stored / "sft" / "train.jsonl").write_text("changed")
    elif damage == "missing":
        (stored / "sft" / "train.jsonl").unlink()
    elif damage == "additional":
        (stored / "additional").write_text("")
    else:
        (stored / "result.json").unlink()
    root = other_machine()
    assert tracking.fetch("clean", key) is None
    assert not (root / "runs" / "clean" / key).exists()
    assert not list((root / "runs" / "clean").glob(".fetch-*"))


def test_a_result_that_was_never_uploaded_is_not_found(finish, other_machine):
    finish("ccccccccccc1", uploaded=False)
    other_machine()
    assert tracking.fetch("clean", "ccccccccccc1") is None
    assert tracking.fetch("clean", "ccccccccccc2") is None  # of no run
    assert tracking.fetch("sft", "ccccccccccc1") is None  # of another stage


# ------------------------------------------------------------------------------------ by run


def test_a_run_is_found_by_name_and_by_id(finish, parent, client, other_machine):
    finish("ddddddddddd1")
    tracking.end_pipeline_run(parent, "FINISHED", {})
    client.set_tag(parent, "mlflow.runName", f"named {parent}")
    other_machine()
    for reference in (parent, f"named {parent}"):
        found = tracking.earlier_run(reference)
        assert (found.run_id, found.name) == (parent, f"named {parent}")
        assert {stage: result.key for stage, result in found.results.items()} == {
            "clean": "ddddddddddd1"
        }


def test_of_runs_with_one_name_the_newest_finished_one_is_meant(client, request):
    config = PipelineConfig(profile=request.node.name)
    runs = [tracking.start_pipeline_run(config, "one name") for _ in range(3)]
    for run_id in runs[:2]:
        tracking.end_pipeline_run(run_id, "FINISHED", {})
    assert tracking.earlier_run("one name").run_id == runs[1]


def test_the_newest_run_is_one_of_a_pipeline(parent):
    tracking.end_pipeline_run(parent, "FINISHED", {})
    other = tracking.start_run("judging", JudgePairsConfig(), "judge-pairs")
    tracking.end_pipeline_run(other, "FINISHED", {})
    assert tracking.earlier_run("").run_id == parent
    assert tracking.earlier_run("judge-pairs").run_id == other


def test_a_run_that_reused_a_stage_has_its_result(finish, parent, other_machine, request):
    finish("eeeeeeeeeee1")
    result = tracking.fetch("clean", "eeeeeeeeeee1")
    second = tracking.start_pipeline_run(PipelineConfig(profile=request.node.name), "second")
    tracking.log_reused(second, result)
    other_machine()
    assert tracking.earlier_run(second).results == {"clean": result}


@pytest.mark.parametrize("reference", ["rlhf-policy@challenger", "models:/rlhf-policy@challenger"])
def test_an_alias_names_the_run_that_made_the_model(reference, client, parent, tmp_path):
    source = tmp_path / "adapter"
    source.mkdir()
    (source / "adapter_config.json").write_text("{}")
    tags = {"parent_run": parent, "policy_digest": parent}
    version = tracking.register_policy(parent, source, tags)
    assert tracking.earlier_run(reference).run_id == parent
    assert tracking.earlier_run(f"{registry.POLICY}@{version}").run_id == parent


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no such name", "no pipeline run is called 'no such name' in MLflow; give the name or id"),
        ("0" * 32, f"no MLflow run {'0' * 32}; give the name or id of one that is there"),
        ("it's", "names hold no quotation marks"),
        ("no-model@champion", "no version 'champion' of the registered model 'no-model'"),
        ("no-model@7", "versions there: none"),
    ],
    ids=["name", "id", "quotation mark", "alias", "version"],
)
def test_what_is_not_there_is_one_line_with_the_cure(reference, message, client, parent):
    with pytest.raises(UserError) as refusal:
        tracking.earlier_run(reference)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
