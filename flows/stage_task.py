"""The task that a stage is in Prefect: its result reused, fetched, or made in a process."""

import contextlib
import time
from typing import Any
from uuid import UUID

import prefect.runtime
from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows import progress
from flows.environment import STAGE_ENVIRONMENT
from flows.refusals import refused
from stages.core import tracking
from stages.core.artifacts import RESULT_FILE, StageResult
from stages.core.config import (
    BenchmarksConfig,
    Compute,
    EvaluateConfig,
    Frozen,
    PPOConfig,
    SamplePairsConfig,
    StageConfig,
    TrainingConfig,
)
from stages.core.errors import StageCrashedError, StageOutOfMemoryError, UserError
from stages.core.launch import (
    WARNING_PREFIX,
    LineHandler,
    ProgressHandler,
    finished_result,
    run_stage,
    stage_folder,
    stage_key,
)

RETRY_DELAYS_SECONDS = [5.0, 30.0]
WITH_MICRO_BATCHES = (
    TrainingConfig, PPOConfig, BenchmarksConfig, EvaluateConfig, SamplePairsConfig,
)  # fmt: skip
"""What the stages that read ``compute.micro_batch_size`` are configured by."""
SECONDS_BETWEEN_ARTIFACTS = 10.0


def is_crash(stage_task: Any, task_run: TaskRun, state: State[Any]) -> bool:
    """A refused setting or bad data stays so; a killed process is worth another try."""
    return isinstance(state.data, StageCrashedError)


@task(
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=is_crash,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def run_or_reuse(
    config: StageConfig,
    inputs: Frozen,
    compute: Compute,
    forced: bool,
    parent_run_id: str,
    upstream: list[Any],
) -> Any:
    """The stage's finished result, or the stage run in a process of its own.

    ``upstream`` only draws the edges of the run's graph.

    Raises:
        UserError: the stage refused its data or its settings.
        StageCrashedError: its process ended without a result.
    """
    stage = config.stage
    reporter = progress.current()
    began = time.monotonic()
    state, metrics = "failed", {}
    try:
        reporter.start(stage)
        result, state = _earlier_result(config, inputs, forced, parent_run_id)
        if result is not None:
            metrics = result.metrics
            tracking.log_reused(parent_run_id, result)
            message = f"result {result.key} of an earlier run"
            return Completed(name=state.capitalize(), message=message, data=result)
        state = "failed"
        fresh = forced and not _may_go_on(config, inputs, parent_run_id)
        result = _run(config, inputs, compute, fresh, parent_run_id)
        state, metrics = "done", result.metrics
        return result
    except UserError as error:
        return refused(error)
    except Exception:
        raise
    except BaseException:  # Ctrl-C, or a cancelled run
        state = "interrupted"
        raise
    finally:
        reporter.end(stage, state, time.monotonic() - began, metrics)


def listeners(stage: str) -> tuple[LineHandler, ProgressHandler]:
    """What takes the lines and the progress events of a stage's process: the run's log, its page
    and the terminal."""
    logger = get_run_logger()
    reporter, lines = progress.current(), progress.PlainReporter(logger.info)
    lines.start(stage)
    artifact = _ProgressArtifact(stage)

    def on_line(line: str) -> None:
        if line.startswith(WARNING_PREFIX):
            logger.warning(line)
            reporter.warn(stage, line)
        else:
            logger.info(line)

    def on_progress(event: dict[str, Any]) -> None:
        reporter.advance(stage, event)
        lines.advance(stage, event)
        artifact.advance(event)

    return on_line, on_progress


# ------------------------------------------------------------------------------------ helpers


def _is_first_try() -> bool:
    """Whether neither the task nor the flow has begun again, after a crash or an approval."""
    flow_runs = prefect.runtime.flow_run.run_count or 1
    return bool(max(flow_runs, prefect.runtime.task_run.run_count) <= 1)


def _earlier_result(
    config: StageConfig, inputs: Frozen, forced: bool, parent_run_id: str
) -> tuple[StageResult | None, str]:
    """A result that is there already, on this machine or in the artifact store, and which of the
    two; none where the stage is to be made again and this pipeline run has not done so yet."""
    if forced and _is_first_try():
        return None, ""
    of_run = parent_run_id if forced else ""
    local = finished_result(config, inputs)
    if local is not None and forced and not tracking.made_in(parent_run_id, local):
        local = None
    result = local or tracking.fetch(config.stage, stage_key(config, inputs), of_run)
    return result, "reused" if local else "fetched"


def _may_go_on(config: StageConfig, inputs: Frozen, parent_run_id: str) -> bool:
    """Whether what lies in a forced stage's folder is this pipeline run's own interrupted attempt.
    A result that lies there is an earlier run's: an own one would have been taken."""
    if _is_first_try() or (stage_folder(config, inputs) / RESULT_FILE).exists():
        return False
    return tracking.has_begun_here(parent_run_id, config.stage, stage_key(config, inputs))


def _run(
    config: StageConfig, inputs: Frozen, compute: Compute, fresh: bool, parent_run_id: str
) -> StageResult:
    """The stage's process, again with half the micro batch as long as memory runs out."""
    logger = get_run_logger()
    log = stage_folder(config, inputs).with_suffix(".log")
    logger.info("output in %s, log in %s", log.with_suffix(""), log)
    on_line, on_progress = listeners(config.stage)
    environment = {
        **STAGE_ENVIRONMENT,
        tracking.PARENT_RUN_VARIABLE: parent_run_id,
        tracking.FLOW_RUN_VARIABLE: str(prefect.runtime.flow_run.id or ""),
    }
    while True:
        try:
            return run_stage(
                config,
                inputs,
                compute,
                on_line=on_line,
                on_progress=on_progress,
                environment=environment,
                fresh=fresh,
            )
        except StageOutOfMemoryError as error:
            if not isinstance(config, WITH_MICRO_BATCHES):
                raise UserError(
                    f"{error}; a smaller compute.micro_batch_size does not help {config.stage}: "
                    "give it less data or a smaller model, or a machine with more memory"
                ) from None
            size = compute.micro_batch_size // 2
            if not size:
                raise UserError(
                    f"{error}; even one sequence at a time is too much: shorten {config.stage}'s "
                    "max_length or max_completion_length, or take a smaller model"
                ) from None
            on_line(f"{WARNING_PREFIX}{error}; again with compute.micro_batch_size={size}")
            changed = {**compute.model_dump(), "micro_batch_size": size}
            compute, fresh = Compute.model_validate(changed), False


class _ProgressArtifact:
    """The stage's bar on the run's page: made at the first step, then moved now and then."""

    def __init__(self, stage: str) -> None:
        self._stage, self._pace = stage, progress.Pace()
        self._id: UUID | None = None
        self._last = 0.0

    def advance(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        text = self._pace.text(self._stage, event, now)
        ended = event["step"] >= event["total"]
        if self._id is not None and now - self._last < SECONDS_BETWEEN_ARTIFACTS and not ended:
            return
        self._last = now
        share = min(100.0 * event["step"] / max(event["total"], 1), 100.0)
        # A server that is away costs the picture of the progress, not the stage.
        with contextlib.suppress(Exception):
            if self._id is None:
                key = f"{self._stage.replace('_', '-')}-progress"
                made = create_progress_artifact(share, key=key, description=text)
                assert isinstance(made, UUID)  # a coroutine only inside an event loop
                self._id = made
            else:
                update_progress_artifact(self._id, share, description=text)
