"""A run that begins again is about the data that it began with."""

import prefect.runtime
import pytest

from flows import chain
from stages.core import tracking
from stages.core.artifacts import StageResult, data_root, folder_files, write_result
from stages.core.config import PipelineConfig

pytestmark = pytest.mark.usefixtures("data_root")


@pytest.fixture
def collected() -> tuple[str, StageResult]:
    """A pipeline run and what it has collected."""
    folder = data_root() / "runs" / "collect" / "0123456789ab"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    result = StageResult(
        stage="collect",
        key=folder.name,
        outputs={},
        metrics={"preferences_train": 3.0},
        files=folder_files(folder),
    )
    write_result(folder, result)
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="again"), "again")
    tracking.log_reused(run_id, result)
    return run_id, result


@pytest.mark.parametrize(("run_count", "is_kept"), [(1, False), (2, True)])
def test_what_was_collected_is_kept_when_the_run_begins_again(
    collected: tuple[str, StageResult],
    run_count: int,
    is_kept: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id, result = collected
    monkeypatch.setattr(prefect.runtime.flow_run, "run_count", run_count, raising=False)
    assert chain._collected(run_id) == ({"collect": result} if is_kept else {})
    tracking.end_pipeline_run(run_id, "FINISHED", {})
