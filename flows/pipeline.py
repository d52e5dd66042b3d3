"""The pipeline as a Prefect flow: one task run a stage, reused where its result is there."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import prefect
import prefect.runtime
from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.events.worker import EventsWorker
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogWorker
from prefect.states import Completed

from flows import abandoned, progress
from flows.environment import STAGE_ENVIRONMENT
from flows.plan import (
    OUTPUTS,
    StageName,
    check,
    planned_stages,
    position,
    stage_config,
    stage_inputs,
)
from flows.profiles import cpu_demo
from flows.servers import mlflow_address
from stages.core import tracking
from stages.core.artifacts import StageResult
from stages.core.config import (
    Compute,
    EvaluateOutputs,
    Frozen,
    PipelineConfig,
    PPOOutputs,
    SFTOutputs,
    StageConfig,
)
from stages.core.errors import StageCrashedError
from stages.core.launch import WARNING_PREFIX, finished_result, run_stage, stage_folder

SEND_TIMEOUT_SECONDS = 15.0
RETRY_DELAYS_SECONDS = [5.0, 30.0]

Results = dict[str, StageResult]


def _run_name() -> str:
    config = prefect.runtime.flow_run.parameters["config"]
    return f"{config.profile} seed {config.seed}"


def _is_crash(stage_task: Any, task_run: TaskRun, state: State[Any]) -> bool:
    """A refused setting or bad data stays so; a killed process is worth another try."""
    return isinstance(state.data, StageCrashedError)


@task(
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=_is_crash,
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
        first_try = prefect.runtime.task_run.run_count <= 1
        result = None if forced and first_try else finished_result(config, inputs)
        if result is not None:
            state, metrics = "reused", result.metrics
            tracking.log_reused(parent_run_id, result)
            message = f"result {result.key} of an earlier run"
            return Completed(name="Reused", message=message, data=result)
        result = _run(config, inputs, compute, forced and first_try, parent_run_id)
        state, metrics = "done", result.metrics
        return result
    except Exception:
        raise
    except BaseException:  # Ctrl-C, or a cancelled run
        state = "interrupted"
        raise
    finally:
        reporter.end(stage, state, time.monotonic() - began, metrics)


def _run(
    config: StageConfig, inputs: Frozen, compute: Compute, fresh: bool, parent_run_id: str
) -> StageResult:
    logger = get_run_logger()
    log = stage_folder(config, inputs).with_suffix(".log")
    logger.info("output in %s, log in %s", log.with_suffix(""), log)
    reporter, lines = progress.current(), progress.PlainReporter(logger.info)
    lines.start(config.stage)

    def on_line(line: str) -> None:
        if line.startswith(WARNING_PREFIX):
            logger.warning(line)
            reporter.warn(config.stage, line)
        else:
            logger.info(line)

    def on_progress(event: dict[str, Any]) -> None:
        reporter.advance(config.stage, event)
        lines.advance(config.stage, event)

    return run_stage(
        config,
        inputs,
        compute,
        on_line=on_line,
        on_progress=on_progress,
        environment={
            **STAGE_ENVIRONMENT,
            tracking.PARENT_RUN_VARIABLE: parent_run_id,
            tracking.FLOW_RUN_VARIABLE: str(prefect.runtime.flow_run.id or ""),
        },
        fresh=fresh,
    )


@flow(name="align", flow_run_name=_run_name, persist_result=False)
def align(
    config: PipelineConfig = cpu_demo(),  # noqa: B008 - the run form shows the default's values
    from_stage: StageName | Literal[""] = "",
    until_stage: StageName | Literal[""] = "",
    fresh: bool = False,
) -> dict[str, float]:
    """Raw text, demonstrations and preferences become an aligned, evaluated and registered model.

    Args:
        config: Every setting of every stage.
        from_stage: Make this stage and all later ones again, though their results are there.
        until_stage: Stop after this stage.
        fresh: Make all stages again.

    Returns:
        The figures of the last stage.

    Raises:
        UserError: a setting, file or data that only the user can mend.
        StageCrashedError: a stage's process ended without a result, retries included.
    """
    stages = planned_stages(config, until_stage)
    forced_from = 0 if fresh else position(stages, from_stage) if from_stage else len(stages)
    check(config, stages)
    flow_run_id = str(prefect.runtime.flow_run.id or "")
    progress.current().flow_run_id = flow_run_id
    abandoned.sweep([config.profile, tracking.git_commit()[:10]])
    results: Results = {}
    with _pipeline_run(config, flow_run_id, results) as run_id:
        outputs: dict[str, Frozen] = {}
        states: dict[str, State[Any]] = {}
        for index, stage in enumerate(stages):
            inputs, upstream = stage_inputs(stage, config, outputs)
            stage_task = run_or_reuse.with_options(name=stage, task_run_name=stage)
            states[stage] = stage_task(
                stage_config(config, stage),
                inputs,
                config.compute,
                forced=index >= forced_from,
                parent_run_id=run_id,
                upstream=[states[name] for name in upstream],
                return_state=True,
            )
            results[stage] = states[stage].result()
            outputs[stage] = OUTPUTS[stage].model_validate(results[stage].outputs)
        if "evaluate" in outputs:
            _publish(run_id, outputs, results)
    return results[stages[-1]].metrics


def send_pending_records() -> None:
    """Send the log lines and events that still wait in this process. Without this the exit of the
    process tries for more than a minute to reach a server that was stopped."""
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=SEND_TIMEOUT_SECONDS)


# ------------------------------------------------------------------------------------ helpers


@contextlib.contextmanager
def _pipeline_run(
    config: PipelineConfig, flow_run_id: str, results: Mapping[str, StageResult]
) -> Iterator[str]:
    """The parent run in MLflow, ended with the flow, however that ends. Yields its id."""
    run_id = tracking.start_pipeline_run(config.profile, config, flow_run_id)
    page = mlflow_address() + tracking.run_page(run_id)
    create_link_artifact(page, "MLflow run", key="mlflow-run", description="Figures and plots")
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    except Exception:
        raise
    except BaseException:  # Ctrl-C, or a cancelled run
        status = "KILLED"
        raise
    finally:
        metrics = results["evaluate"].metrics if "evaluate" in results else {}
        tracking.end_pipeline_run(run_id, status, metrics)


def _publish(run_id: str, outputs: Mapping[str, Frozen], results: Results) -> None:
    """The report in both UIs and on the terminal, the policy in the registry."""
    evaluate, ppo, sft = outputs["evaluate"], outputs["ppo"], outputs["sft"]
    assert isinstance(evaluate, EvaluateOutputs)
    assert isinstance(ppo, PPOOutputs)
    assert isinstance(sft, SFTOutputs)
    report = evaluate.report.locate()
    tracking.log_report(run_id, report)
    tags = {
        **{name: f"{value:.4g}" for name, value in results["evaluate"].metrics.items()},
        "parent_run": run_id,
        "policy_digest": ppo.model.digest,
        "base": sft.model.path,
        "base_digest": sft.model.digest,
    }
    policy = ppo.adapter or ppo.model  # no adapter where all weights were trained
    version = tracking.register_policy(run_id, policy.locate(), tags)
    page = mlflow_address() + tracking.run_page(run_id)
    links = f"[MLflow run]({page}) · policy: `rlhf-policy` version {version} (challenger)\n\n"
    create_markdown_artifact(links + _report_text(report), key="report", description="Report")
    progress.current().places.update(
        {
            "report": str(report / "report.html"),
            "policy": f"{ppo.model.locate()} (rlhf-policy version {version})",
        }
    )


def _report_text(report: Path) -> str:
    """The report without its plots, which Prefect cannot show from the disk."""
    text = (report / "report.md").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.startswith("!["))
