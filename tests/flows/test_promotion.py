"""The policy's way to champion."""

from pathlib import Path

import mlflow
import pytest

from flows.promotion import promote
from stages.core import tracking
from stages.core.config import PipelineConfig
from stages.core.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server", "data_root")]


@pytest.fixture
def challenger(tmp_path: Path) -> str:
    """Number of a registered version."""
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="promotion"), "promotion")
    return tracking.register_policy(run_id, folder, {"win_rate": "0.7", "parent_run": run_id})


def test_auto_makes_the_challenger_champion(challenger: str) -> None:
    assert promote(mode="auto") == {"version": float(challenger)}
    champion = mlflow.MlflowClient().get_model_version_by_alias("rlhf-policy", "champion")
    assert str(champion.version) == challenger
    assert "without a question" in champion.tags["promotion_comment"]
    run = tracking.earlier_run("rlhf-policy@champion")
    assert run.run_id == champion.tags["parent_run"]


@pytest.mark.usefixtures("challenger")
def test_a_version_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"no version '999' .* versions there: "):
        promote(version="999", mode="auto")


@pytest.mark.usefixtures("challenger")
def test_ask_needs_a_run_that_can_wait() -> None:
    with pytest.raises(UserError, match="only deployed runs can"):
        promote(mode="ask")
