"""Which runs used which results, and the copies among their artifacts."""

import pytest

from stages.core import tracking
from stages.core.config import PipelineConfig
from stages.core.errors import UserError

KEY = ("clean", "0123456789ab")


@pytest.fixture
def made(parent, stage, out_dir, result):
    """Id of a stage run that made a result and stored a copy of it."""
    (out_dir / "feedback").mkdir()
    (out_dir / "feedback" / "1.json").write_text('{"a": 1}')
    (out_dir / "feedback" / "2.json").write_text('{"b": 2}')
    with stage() as run_id:
        tracking.log_result(out_dir, result(tracking_run_id=run_id))
    return run_id


def test_a_result_has_makers_and_users(client, parent, made, result):
    reused = tracking.start_pipeline_run(PipelineConfig(profile="again"), "again")
    tracking.log_reused(reused, result(tracking_run_id=made))
    history = tracking.read_history()
    assert made in history.makers[KEY]
    assert {parent, reused} <= history.users[KEY]
    assert history.pipelines[reused].experiment == "again"
    assert made not in history.pipelines
    client.delete_run(reused)
    assert reused not in tracking.read_history().pipelines


def test_the_texts_of_a_copy_are_read_and_the_copy_removed(made):
    assert tracking.has_copy(made)
    assert list(tracking.stored_texts(made, "feedback")) == ['{"a": 1}', '{"b": 2}']
    assert list(tracking.stored_texts(made, "nothing")) == []
    tracking.remove_copy(made)
    tracking.remove_copy(made)
    assert not tracking.has_copy(made)


def test_a_copy_that_cannot_be_removed_is_one_line(client, made, monkeypatch):
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def refuse(self, path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", refuse)
    with pytest.raises(UserError, match=f"{made} cannot be removed: .*Permission denied; mend it"):
        tracking.remove_copy(made)
    assert tracking.has_copy(made)
