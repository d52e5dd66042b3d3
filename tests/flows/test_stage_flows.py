"""Stages alone, on the results of an earlier run, against real stores; the stages are real too."""

from typing import Any

import mlflow
import pytest

from flows import stage_flows
from stages.core import tracking
from stages.core.artifacts import data_root
from stages.core.config import (
    CleanConfig,
    CollectConfig,
    Compute,
    PipelineConfig,
    PretrainConfig,
    RewardModelCardConfig,
    RewardModelConfig,
    SFTConfig,
    TokenizerConfig,
)
from stages.core.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server", "data_root")]

COMPUTE = Compute(device="cpu", num_threads=1)
TOKENIZER = {
    "tokenizer": TokenizerConfig(vocab_size=300),
    "pretrain": PretrainConfig(enabled=False),
    "compute": COMPUTE,
}


@pytest.fixture
def prepared(tiny_config: PipelineConfig, request: pytest.FixtureRequest) -> str:
    """Name of an experiment with one run of prepare-data."""
    name = str(request.node.name)
    collect = CollectConfig.model_validate(tiny_config.collect.model_dump())
    stage_flows.prepare_data(collect, CleanConfig(), experiment=name)
    return name


def _runs(experiment: str) -> list[Any]:
    tracking.set_up()
    found = mlflow.MlflowClient().get_experiment_by_name(experiment)
    assert found is not None
    return mlflow.MlflowClient().search_runs([found.experiment_id])


def test_a_stage_builds_on_the_newest_run_and_the_next_on_it(prepared: str) -> None:
    stage_flows.pretrain(**TOKENIZER)
    assert (data_root() / "runs" / "tokenizer").is_dir()
    runs = {run.info.run_name: run for run in _runs(prepared)}
    assert {"prepare-data", "tokenizer seed 0"} & runs.keys()
    (parent,) = [run for run in _runs(prepared) if run.info.run_name == "tokenizer seed 0"]
    nested = {
        run.info.run_name: "reused_from" in run.data.tags
        for run in _runs(prepared)
        if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    # The whole chain hangs below the newest run, so that the next stage finds all of it there.
    assert nested == {"collect": True, "clean": True, "tokenizer": False}
    assert set(tracking.earlier_run(parent.info.run_id).results) == nested.keys()


def test_a_run_is_picked_by_name_or_id(prepared: str) -> None:
    (parent,) = [r for r in _runs(prepared) if "mlflow.parentRunId" not in r.data.tags]
    for reference in (parent.info.run_name, parent.info.run_id):
        assert tracking.earlier_run(reference).results.keys() == {"collect", "clean"}


def test_a_stage_says_which_result_it_lacks(prepared: str) -> None:
    with pytest.raises(UserError, match="sft needs the result of stage base_model, .* clean"):
        stage_flows.sft(SFTConfig(), COMPUTE)


def test_a_reward_model_and_its_card_are_one_run_with_the_seed_of_the_first(prepared: str) -> None:
    with pytest.raises(UserError, match="reward_model needs the result of stage base_model"):
        stage_flows.reward_model(RewardModelConfig(seed=5), RewardModelCardConfig(), COMPUTE)
    (run,) = [run for run in _runs(prepared) if run.info.run_name == "reward-model seed 5"]
    assert run.data.params["reward_model.seed"] == run.data.params["reward_model_card.seed"] == "5"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no such run", "no pipeline run is called 'no such run'"),
        ("0" * 32, "no MLflow run 0000"),
        ("rlhf-policy@nobody", "no version 'nobody' of the registered model 'rlhf-policy'"),
        ("it's", "names hold no quotation marks"),
    ],
)
def test_a_run_that_is_not_there_is_one_line(reference: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        stage_flows.sft(SFTConfig(), COMPUTE, earlier_run=reference)
