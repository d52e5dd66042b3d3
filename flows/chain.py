"""A chain of stages inside a flow run: its MLflow run, one task a stage, and how it ends."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import prefect.runtime
from prefect.artifacts import create_link_artifact
from prefect.client.schemas.objects import State
from prefect.exceptions import Pause
from prefect.settings import PREFECT_UI_URL

from flows import fetching, lineage, progress, recovery
from flows.approval import StoppedByPersonError
from flows.hand_over import stage_inputs
from flows.plan import OUTPUTS, stage_config
from flows.servers import mlflow_address
from flows.stage_task import run_or_reuse
from stages.core import tracking
from stages.core.artifacts import Artifact, StageResult
from stages.core.config import Frozen, PipelineConfig
from stages.core.errors import UserError

CONCLUDING = ("evaluate", "judge_pairs", "sample_pairs")
"""The stages whose figures are those of the whole run."""
Results = dict[str, StageResult]
BeforeStage = Callable[[str, PipelineConfig, Results], PipelineConfig]


@contextlib.contextmanager
def pipeline_run(config: PipelineConfig, name: str, results: Results) -> Iterator[str]:
    """As ``tracked_run``, in the profile's experiment."""
    with tracked_run(config.profile, config, name, results) as run_id:
        yield run_id


@contextlib.contextmanager
def tracked_run(experiment: str, config: Frozen, name: str, results: Results) -> Iterator[str]:
    """The parent run in MLflow, ended with the flow, however that ends. Yields its id.

    Args:
        config: its fields become the run's parameters.
        results: filled by the block; the figures of the evaluation, or of what stands in its place,
            are the run's.
    """
    _outlive_reader()
    flow_run_id = str(prefect.runtime.flow_run.id or "")
    progress.current().flow_run_id = flow_run_id
    recovery.mark_this_run([experiment, tracking.git_commit()[:10]])
    recovery.sweep_if_possible()
    tracking.end_abandoned_runs()
    tracking.end_suspended_runs(recovery.has_ended)
    page = _flow_page(flow_run_id)
    run_id = tracking.start_run(experiment, config, name, flow_run_id, page)
    page = mlflow_address() + tracking.run_page(run_id)
    create_link_artifact(page, "MLflow run", key="mlflow-run", description="Figures and plots")
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    except StoppedByPersonError:
        status = "KILLED"
        raise
    except Exception:
        raise
    except Pause:
        status = "SUSPENDED"
        raise
    except BaseException:  # Ctrl-C, or a cancelled run
        status = "KILLED"
        raise
    finally:
        if status == "SUSPENDED":
            tracking.suspend_pipeline_run(run_id)
        else:
            last = next((results[stage] for stage in CONCLUDING if stage in results), None)
            tracking.end_pipeline_run(run_id, status, last.metrics if last else {})


def run_stages(
    config: PipelineConfig,
    stages: Sequence[str],
    run_id: str,
    results: Results,
    *,
    forced: Sequence[str] = (),
    before: BeforeStage = lambda stage, config, results: config,
    champion: Callable[[Mapping[str, Frozen]], Artifact | None] = lambda outputs: None,
    previous: Callable[[], Artifact | None] = lambda: None,
) -> dict[str, Frozen]:
    """Run ``stages`` in their order, each with what the ones before it returned.

    Args:
        results: of stages that are done; those of ``stages`` are added.
        forced: stages that are made again though their result is there.
        before: called before each stage; returns the configuration to go on with.
        champion: finds the model that the evaluation compares the policy with.
        previous: finds the reward model that the new one's card compares it with.

    Returns:
        The outputs of all stages in ``results``.

    Raises:
        UserError: a stage refused its data or settings, or needs one that did not run.
        StageCrashedError: a stage's process ended without a result, retries included.
    """
    if "collect" in stages and fetching.is_needed(config):
        results |= _collected(run_id)
    tracking.tag_run(run_id, lineage.feedback_tags(results))
    outputs = {stage: _outputs(result) for stage, result in results.items()}
    states: dict[str, State[Any]] = {}
    for stage in stages:
        config = before(stage, config, results)
        if stage in results:
            continue
        if stage == "collect" and fetching.is_needed(config):
            tracking.tag_run(run_id, lineage.before_fetching(config))
            states["fetch"] = fetching.fetch(config.collect, config.compute, return_state=True)
            outputs["fetch"] = states["fetch"].result()
        opponent = champion(outputs) if stage == "evaluate" else None
        rival = previous() if stage == "reward_model_card" else None
        inputs, upstream = stage_inputs(stage, config, outputs, opponent, rival)
        stage_task = run_or_reuse.with_options(name=stage, task_run_name=stage)
        states[stage] = stage_task(
            stage_config(config, stage),
            inputs,
            config.compute,
            forced=stage in forced,
            parent_run_id=run_id,
            upstream=[states[name] for name in upstream if name in states],
            return_state=True,
        )
        results[stage] = states[stage].result()
        outputs[stage] = _outputs(results[stage])
        if stage == "collect":
            tracking.tag_run(run_id, lineage.feedback_tags(results))
    return outputs


def begins_again() -> bool:
    """Whether the flow run has begun before: after a crash, or an answer that it waited for."""
    return (prefect.runtime.flow_run.run_count or 1) > 1


def bring(earlier: tracking.EarlierRun, run_id: str, stages: Sequence[str]) -> Results:
    """The results of an earlier run's ``stages``, their folders on this machine.

    Raises:
        UserError: a folder is neither here nor in the artifact store.
    """
    brought = {}
    for stage in stages:
        if stage not in earlier.results:
            continue
        key = earlier.results[stage].key
        result = tracking.fetch(stage, key)
        if result is None:
            raise UserError(
                f"the result of stage {stage} (key {key}) of run {earlier.name!r} is neither on "
                "this machine nor in MLflow's artifacts; run that stage again"
            )
        tracking.log_reused(run_id, result)
        brought[stage] = result
    return brought


# ------------------------------------------------------------------------------------ helpers


def _outlive_reader() -> None:
    """Let what a worker's flow run prints get lost once nobody reads it: a killed worker leaves a
    broken pipe, and printing into it would end a run that is well."""
    if recovery.RUN_VARIABLE not in os.environ:
        return

    def forgiving(call: Callable[..., Any]) -> Callable[..., Any]:
        def quiet(*arguments: Any) -> Any:
            with contextlib.suppress(BrokenPipeError):
                return call(*arguments)

        return quiet

    for stream in (sys.stdout, sys.stderr):
        for name in ("write", "flush"):
            setattr(stream, name, forgiving(getattr(stream, name)))


def _collected(run_id: str) -> Results:
    """What this run has collected, where it begins again after a crash or an answer: databases and
    review queues may hold more since, and a run is about what it began with."""
    if not begins_again():
        return {}
    return bring(tracking.earlier_run(run_id), run_id, ["collect"])


def _outputs(result: StageResult) -> Frozen:
    return OUTPUTS[result.stage].model_validate(result.outputs)


def _flow_page(flow_run_id: str) -> str:
    address = PREFECT_UI_URL.value()
    return f"{address}/runs/flow-run/{flow_run_id}" if address and flow_run_id else ""
