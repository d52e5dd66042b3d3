"""A stage that runs out of memory is tried again with half the micro batch, as long as there is a
half. The stage's process is stood for, since no test machine shall run out of memory."""

from collections.abc import Callable
from typing import Any

import pytest

from flows import stage_task
from stages.core.artifacts import StageResult
from stages.core.config import (
    BaseModelConfig,
    CleanConfig,
    CollectConfig,
    Compute,
    EvaluateConfig,
    PPOConfig,
    PretrainConfig,
    StageConfig,
    TokenizerConfig,
)
from stages.core.contracts import CollectInputs
from stages.core.errors import StageOutOfMemoryError, UserError

pytestmark = pytest.mark.usefixtures("prefect_server", "data_root")

TRAINING = PretrainConfig()
Tries = list[tuple[int, bool]]
Run = Callable[..., None]


@pytest.fixture
def tries() -> Tries:
    """The micro batches that were tried, and whether each try began from nothing."""
    return []


@pytest.fixture
def run(tries: Tries, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a stage for which a micro batch of so many sequences is not too much."""

    def with_room_for(room: int, config: StageConfig = TRAINING) -> None:
        def run_stage(config: Any, inputs: Any, compute: Compute, **options: Any) -> StageResult:
            tries.append((compute.micro_batch_size, options["fresh"]))
            if compute.micro_batch_size > room:
                raise StageOutOfMemoryError(f"{config.stage} ran out of memory; whole log: /x.log")
            return StageResult(stage=config.stage, key="0", outputs={}, metrics={}, files={})

        monkeypatch.setattr(stage_task, "run_stage", run_stage)
        compute = Compute(micro_batch_size=12, num_threads=3)
        # The inputs only count for the key of a folder that is not there.
        arguments = (config, CollectInputs(), compute, True, "", [])
        stage_task.run_or_reuse(*arguments, return_state=True).result()

    return with_room_for


def test_enough_memory_changes_nothing(run: Run, tries: Tries) -> None:
    run(12)
    assert tries == [(12, True)]


def test_the_micro_batch_is_halved_until_it_fits(run: Run, tries: Tries) -> None:
    run(3)
    # The first try throws the old folder away; the next ones go on from its checkpoints.
    assert tries == [(12, True), (6, False), (3, False)]


def test_not_enough_memory_for_one_sequence_is_one_line_with_the_cure(
    run: Run, tries: Tries
) -> None:
    with pytest.raises(UserError) as refusal:
        run(0)
    assert [size for size, _ in tries] == [12, 6, 3, 1]
    message = str(refusal.value)
    assert message.startswith("pretrain ran out of memory; whole log: /x.log; even one sequence at")
    assert "shorten pretrain's max_length or max_completion_length, or take a smaller" in message
    assert "\n" not in message


@pytest.mark.parametrize("config", [PPOConfig(), EvaluateConfig()])
def test_ppo_and_the_evaluation_have_micro_batches_too(
    config: StageConfig, run: Run, tries: Tries
) -> None:
    run(6, config)
    assert [size for size, _ in tries] == [12, 6]


@pytest.mark.parametrize(
    "config", [CollectConfig(), CleanConfig(), TokenizerConfig(), BaseModelConfig()]
)
def test_a_stage_without_micro_batches_is_not_tried_again(
    config: StageConfig, run: Run, tries: Tries
) -> None:
    with pytest.raises(UserError, match=rf"micro_batch_size does not help {config.stage}: give it"):
        run(0, config)
    assert len(tries) == 1
