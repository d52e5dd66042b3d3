"""The flow ``align``: the whole chain, from raw data to an evaluated and registered policy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import prefect.runtime
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.states import Cancelled

from flows import approval, chain, progress
from flows.plan import OptionalStageName, check, planned_stages, position
from flows.profiles import cpu_demo
from flows.refusals import refusals_as_states
from flows.servers import mlflow_address
from stages.core import tracking
from stages.core.config import Frozen, PipelineConfig
from stages.core.contracts import EvaluateOutputs, PPOOutputs, SFTOutputs
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
    taken, stages = (stages[:start], stages[start:]) if earlier else ((), stages)
    check(config, stages)
    approval.check(config)
    results: chain.Results = {}
    try:
        with chain.pipeline_run(config, _run_name_of(config), results) as run_id:
            if earlier is not None:
                results |= chain.bring(earlier, run_id, taken)
            outputs = chain.run_stages(
                config, stages, run_id, results, forced=forced, before=_ask_before_ppo
            )
            if "evaluate" in outputs:
                publish(config, run_id, outputs, results)
    except approval.StoppedByPersonError as stop:
        return Cancelled(message=str(stop))
    return results[stages[-1]].metrics


def publish(
    config: PipelineConfig, run_id: str, outputs: Mapping[str, Frozen], results: chain.Results
) -> None:
    """The report in both UIs and on the terminal, the policy in the registry, and its promotion as
    configured."""
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
    text = links + _report_text(report)
    create_markdown_artifact(text, key="report", description="Report")
    progress.current().places.update(
        {
            "report": str(report / "report.html"),
            "policy": f"{ppo.model.locate()} (rlhf-policy version {version})",
        }
    )
    if config.approval.promotion == "auto":
        tracking.promote(version, "promoted without a question (approval.promotion = auto)")
    elif config.approval.promotion == "ask":
        answer = approval.promotion(config, text)
        if answer.decision == "promote":
            tracking.promote(version, answer.comment)


def send_pending_records() -> None:
    """Send the log lines and events that still wait in this process. Without this the exit of the
    process tries for more than a minute to reach a server that was stopped."""
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=SEND_TIMEOUT_SECONDS)


# ------------------------------------------------------------------------------------ helpers


def _run_name_of(config: PipelineConfig) -> str:
    return f"{config.profile} seed {config.seed}"


def _ask_before_ppo(stage: str, config: PipelineConfig, results: chain.Results) -> PipelineConfig:
    if stage != "ppo" or config.approval.before_ppo == "off":
        return config
    figures = results["reward_model"].metrics
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in sorted(figures.items()))
    table = f"The reward model's figures:\n\n| figure | value |\n|---|---|\n{rows}\n"
    return approval.before_ppo(config, table)


def _report_text(report: Path) -> str:
    """The report without its plots, which Prefect cannot show from the disk."""
    text = (report / "report.md").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.startswith("!["))
