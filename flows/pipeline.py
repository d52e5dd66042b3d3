"""The flow ``align``: the whole chain, from raw data to an evaluated and registered policy."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import prefect.runtime
from prefect import flow
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.states import Cancelled, Completed

from flows import approval, chain
from flows.gates import check_reward_model
from flows.plan import OUTPUTS, OptionalStageName, check, planned_stages, position
from flows.profiles import cpu_demo
from flows.promotion import Opponent
from flows.publishing import REFUSED, publish
from flows.refusals import refusals_as_states
from stages.core import tracking
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
    if earlier:
        # All that there are: the earlier run may have had other stages than this one would.
        taken, stages = list(OUTPUTS)[: list(OUTPUTS).index(stages[start])], stages[start:]
    check(config, stages)
    approval.check(config)
    results: chain.Results = {}
    opponent, refusals = Opponent(config), list[str]()
    try:
        with chain.pipeline_run(config, _run_name_of(config), results) as run_id:
            if earlier is not None:
                results |= chain.bring(earlier, run_id, taken)
            outputs = chain.run_stages(
                config,
                stages,
                run_id,
                results,
                forced=forced,
                before=partial(_before_ppo, run_id),
                champion=opponent.find,
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


def _before_ppo(
    run_id: str, stage: str, config: PipelineConfig, results: chain.Results
) -> PipelineConfig:
    if stage != "ppo":
        return config
    check_reward_model(config, run_id, results)
    return _ask_before_ppo(config, results)


def _ask_before_ppo(config: PipelineConfig, results: chain.Results) -> PipelineConfig:
    source = next((s for s in ("reward_model_card", "reward_model") if s in results), "")
    if config.approval.before_ppo == "off" or not source:  # without one, ppo itself says so
        return config
    return approval.before_ppo(config, _figures_table(results[source].metrics))


def _figures_table(figures: Mapping[str, float]) -> str:
    """Each figure in a row, with its interval where it has one."""
    lines = [
        f"| {name} | {value:.4g} | {_interval(figures, name)} |"
        for name, value in sorted(figures.items())
        if not name.endswith(("_low", "_high"))
    ]
    head = "The reward model's figures:\n\n| figure | value | 95 % interval |\n|---|---|---|\n"
    return head + "\n".join(lines) + "\n"


def _interval(figures: Mapping[str, float], name: str) -> str:
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    return "" if low is None or high is None else f"{low:.3g} to {high:.3g}"
