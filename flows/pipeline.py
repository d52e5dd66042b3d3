"""The flow ``align``: the whole chain, from raw data to an evaluated and registered policy."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import prefect.runtime
from prefect import flow
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.states import Cancelled, Completed

from flows import approval, chain
from flows.gates import before_ppo
from flows.plan import OUTPUTS, OptionalStageName, check, planned_stages, position
from flows.profiles import cpu_demo
from flows.promotion import Opponent
from flows.publishing import REFUSED, publish
from flows.refusals import refusals_as_states
from stages.core import tracking
from stages.core.artifacts import Artifact
from stages.core.config import PipelineConfig
from stages.core.errors import UserError
from stages.core.form import parameter

SEND_TIMEOUT_SECONDS = 15.0


def _run_name() -> str:
    config = prefect.runtime.flow_run.parameters["config"]
    return f"{config.profile} seed {config.seed}"


@flow(name="align", flow_run_name=_run_name, persist_result=False)
@refusals_as_states
def align(
    config: Annotated[PipelineConfig, parameter("Settings")] = cpu_demo(),
    from_stage: Annotated[OptionalStageName, parameter("From stage")] = "",
    until_stage: Annotated[OptionalStageName, parameter("Until stage")] = "",
    fresh: Annotated[bool, parameter("Fresh")] = False,
    earlier_run: Annotated[str, parameter("Earlier run")] = "",
) -> Any:
    """Raw text, demonstrations and preferences become an aligned, evaluated and registered model.

    Args:
        config: Every setting of every stage.
        from_stage: Make this stage and all later ones again, though their results are there.
        until_stage: Stop after this stage.
        fresh: Make all stages again.
        earlier_run: Take the stages before From stage from this MLflow run as they are: its name
            or id, or a registered model's alias such as rlhf-policy@champion. Empty: run or reuse
            them by their settings.

    Returns:
        The figures of the last stage.

    Raises:
        UserError: a setting, file or data that only the user can mend.
        StageCrashedError: a stage's process ended without a result, retries included.
    """
    if earlier_run and not from_stage:
        raise UserError("Earlier run: choose in From stage which stage is the first to be made")
    stages = planned_stages(config, until_stage)
    start = position(stages, from_stage) if from_stage else 0
    earlier = tracking.earlier_run(earlier_run) if earlier_run else None
    forced = stages if fresh else stages[start:] if from_stage else ()
    taken: list[str] = []
    if earlier:
        # All that there are: the earlier run may have had other stages than this one would.
        taken, stages = list(OUTPUTS)[: list(OUTPUTS).index(stages[start])], stages[start:]
    check(config, stages)
    approval.check(config)

    def brought(run_id: str) -> chain.Results:
        return chain.bring(earlier, run_id, taken) if earlier is not None else {}

    return run_chain(config, stages, _run_name_of(config), forced=forced, brought=brought)


def run_chain(
    config: PipelineConfig,
    stages: Sequence[str],
    name: str,
    *,
    forced: Sequence[str] = (),
    brought: Callable[[str], chain.Results] = lambda run_id: {},
    previous: Callable[[], Artifact | None] = lambda: None,
) -> Any:
    """Run ``stages`` in an MLflow run called ``name``, publish the policy where it is evaluated,
    and return what the flow ends with: the figures of the last stage, or a state that says why not.

    Args:
        forced: stages that are made again though their result is there.
        brought: finds the results of the stages that are not run, given the MLflow run's id.
        previous: finds the reward model that the new one is compared with.

    Raises:
        UserError: a setting, file or data that only the user can mend.
        StageCrashedError: a stage's process ended without a result, retries included.
    """
    results: chain.Results = {}
    opponent, refusals = Opponent(config), list[str]()
    try:
        with chain.pipeline_run(config, name, results) as run_id:
            results |= brought(run_id)
            outputs = chain.run_stages(
                config,
                stages,
                run_id,
                results,
                forced=forced,
                before=partial(before_ppo, run_id),
                champion=opponent.find,
                previous=previous,
            )
            if "evaluate" in outputs:
                refusals = publish(config, run_id, outputs, results, opponent)
    except approval.StoppedByPersonError as stop:
        return Cancelled(message=str(stop))
    if refusals:
        return Completed(name=REFUSED, message="; ".join(refusals))
    return results[stages[-1]].metrics


def send_pending_records() -> None:
    """Send the log lines and events that still wait in this process. Without this the exit of the
    process tries for more than a minute to reach a server that was stopped."""
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=SEND_TIMEOUT_SECONDS)


# ------------------------------------------------------------------------------------ helpers


def _run_name_of(config: PipelineConfig) -> str:
    return f"{config.profile} seed {config.seed}"
