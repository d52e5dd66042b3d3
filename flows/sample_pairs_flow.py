"""People are asked about pairs: replies sampled, pairs chosen, and a review queue opened."""

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact

from flows import chain, progress, sample_pairs_inputs
from flows.feedback_watch import DEPLOYMENT, begin_watching
from flows.places import setting_files
from flows.refusals import refusals_as_states
from flows.sample_pairs_inputs import Asked
from flows.servers import mlflow_address
from flows.stage_flows import COMPUTE, EarlierRunName, Where
from flows.stage_task import run_or_reuse
from stages.core import tracking
from stages.core.artifacts import StageResult, json_digest
from stages.core.config import Compute, ModelName, ReviewQueueConfig, SamplePairsConfig
from stages.core.contracts import SamplePairsInputs, SamplePairsOutputs
from stages.core.feedback.pairs import read_pairs
from stages.core.form import parameter

STAGE = "sample_pairs"
RUNS = "{}-pairs"
"""MLflow experiment of these runs, after that of the queues. Another one, since reviewers could
look up there which model gave an answer."""


class AskedPairs(Asked):
    """What MLflow shows of a run. Who is asked is not recorded."""

    sample_pairs: SamplePairsConfig
    overlap_share: float
    num_reviewers: int


@flow(name="sample-pairs", flow_run_name="sample-pairs seed {config.seed}", persist_result=False)
@refusals_as_states
def sample_pairs(
    config: Annotated[SamplePairsConfig, parameter("Settings")] = SamplePairsConfig(),
    queue: Annotated[ReviewQueueConfig, parameter("Review queue")] = ReviewQueueConfig(),
    compute: Where = COMPUTE,
    earlier_run: EarlierRunName = "",
    models: Annotated[
        tuple[ModelName, ...],
        parameter(
            "Models",
            "Whose replies are compared: policy and sft are the earlier run's, champion and "
            "challenger those of the model registry.",
        ),
    ] = ("policy", "sft"),
    prompts: Annotated[
        tuple[str, ...],
        parameter(
            "Prompts",
            "Files with prompts: paths, globs or folders. With none, and no traffic, the earlier "
            "run's cleaned training prompts are taken.",
        ),
    ] = (),
    traffic: Annotated[
        str,
        parameter(
            "Traffic",
            "MLflow experiment to which an application logs its traces: their inputs are prompts, "
            "personal data in them replaced.",
        ),
    ] = "",
    gold: Annotated[
        tuple[str, ...],
        parameter(
            "Gold",
            "Files of preferences whose answer is beyond doubt: some of them are mixed in, to tell "
            "how careful a reviewer is.",
        ),
    ] = (),
) -> Any:
    """Let models reply to prompts, choose the pairs of replies worth a person's time, and open a
    review queue for them in MLflow.

    Interrupted at any point and started again with the same settings, it goes on where it was;
    once the queue is open, it asks about other pairs.
    """
    prompt_files = setting_files(prompts, "prompts")
    gold_files = setting_files(gold, "gold")
    earlier = tracking.earlier_run(earlier_run)
    asked = AskedPairs(
        earlier_run=earlier.run_id,
        models=models,
        prompts=prompts,
        traffic=traffic,
        gold=gold,
        sample_pairs=config,
        overlap_share=queue.overlap_share,
        num_reviewers=len(queue.reviewers),
    )
    experiment, name = RUNS.format(queue.experiment), f"sample-pairs seed {config.seed}"
    results: chain.Results = {}
    with chain.tracked_run(experiment, asked, name, results) as run_id:
        inputs = sample_pairs_inputs.stage_inputs(asked, earlier, run_id, prompt_files, gold_files)
        results[STAGE] = _choose(config, queue, inputs, compute, run_id)
        _open(queue, results[STAGE])
    return results[STAGE].metrics


# ------------------------------------------------------------------------------------ helpers


def _choose(
    config: SamplePairsConfig,
    queue: ReviewQueueConfig,
    inputs: SamplePairsInputs,
    compute: Compute,
    run_id: str,
) -> StageResult:
    """The pairs to ask about: those of an equal run that was interrupted before all of them were in
    a queue, else newly chosen ones."""
    request = json_digest([part.model_dump(mode="json") for part in (config, queue, inputs)])
    tracking.note_request(run_id, request)
    unasked = tracking.unasked_pairs(request)
    if unasked is not None:
        get_run_logger().info("the pairs of an interrupted run (%s) are taken over", unasked.key)
        tracking.log_reused(run_id, unasked)
        progress.current().end(STAGE, "reused", 0.0, unasked.metrics)
        return unasked
    known = sample_pairs_inputs.known_pairs(queue.experiment)
    state = run_or_reuse.with_options(name=STAGE, task_run_name=STAGE)(
        config,
        inputs.model_copy(update={"known_pairs": known}),
        compute,
        forced=False,
        parent_run_id=run_id,
        upstream=[],
        return_state=True,
    )
    result = state.result()
    assert isinstance(result, StageResult)
    return result


def _open(queue: ReviewQueueConfig, result: StageResult) -> None:
    """Bring the pairs into the review queue, and say where that is."""
    pairs = read_pairs(SamplePairsOutputs.model_validate(result.outputs).pairs.locate())
    opened = tracking.open_queue(queue, pairs, result.tracking_run_id)
    if begin_watching(queue.experiment):
        get_run_logger().info("%s looks for judgments from now on", DEPLOYMENT)
    tracking.note_asked(result, opened.page)
    page = mlflow_address() + opened.page
    num_queues = len(opened.names)
    text = f"{opened.num_pairs} pairs, {opened.num_traces} to judge"
    text += f" in {num_queues} queues" if num_queues > 1 else ""
    create_link_artifact(page, opened.name, key="review-queue", description=text)
    get_run_logger().info("review queue %s: %s: %s", opened.name, text, page)
    progress.current().places.update({"review queue": f"{opened.name} ({text})", "page": page})
