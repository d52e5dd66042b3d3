"""The policy's way to champion."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest

from flows.promotion import Opponent, make_champion, promote
from stages.core import tracking
from stages.core.artifacts import make_artifact
from stages.core.config import PipelineConfig
from stages.core.contracts import PPOOutputs
from stages.core.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server", "data_root")]


@pytest.fixture
def register(tmp_path: Path, data_root: Path) -> Callable[..., str]:
    """Registers a policy, alone in the registry at first; returns the version's number."""
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    run_id = tracking.start_pipeline_run(PipelineConfig(profile="promotion"), "promotion")
    client = mlflow.MlflowClient()
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)

    def register(**tags: str) -> str:
        return tracking.register_policy(run_id, folder, {"parent_run": run_id, **tags})

    return register


@pytest.fixture
def challenger(register: Callable[..., str]) -> str:
    """Number of a registered version."""
    return register(win_rate="0.7", gate="passed")


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


def test_what_the_gate_refused_is_not_promoted(register: Callable[..., str]) -> None:
    version = register(gate="refused: the win rate's lower end, 0.43, is not above 0.5")
    with pytest.raises(
        UserError, match=rf"version {version} did not pass .* refused: the win rate"
    ):
        promote(mode="auto")
    assert tracking.champion() is None


def test_of_two_promotions_at_once_one_wins(register: Callable[..., str]) -> None:
    versions = [register(compared_with="none") for _ in range(4)]

    def outcome(version: str) -> str:
        try:
            make_champion(version, "")
        except UserError as error:
            return str(error)
        return "promoted"

    with ThreadPoolExecutor(len(versions)) as pool:
        outcomes = list(pool.map(outcome, versions))
    assert outcomes.count("promoted") == 1
    assert sum("evaluate it again" in outcome for outcome in outcomes) == 3
    champion = tracking.champion()
    assert champion is not None
    assert champion.version == versions[outcomes.index("promoted")]


@pytest.mark.usefixtures("register")
def test_without_a_champion_there_is_no_opponent() -> None:
    opponent = Opponent(PipelineConfig())
    assert opponent.find({}) is None
    assert opponent.number == "none"


def test_the_champion_itself_is_no_opponent(register: Callable[..., str], data_root: Path) -> None:
    (data_root / "model").mkdir()
    model = make_artifact("model", data_root / "model")
    outputs = {"ppo": PPOOutputs(model=model, history=model)}
    version = register(policy_digest=model.digest)
    make_champion(version, "")
    opponent = Opponent(PipelineConfig())
    assert opponent.find(outputs) is None
    assert opponent.number == version
