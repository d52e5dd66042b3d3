"""The flow ``judge-pairs``: a language model judges the pairs that people have not judged yet."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed

from flows import chain
from flows.refusals import refusals_as_states
from flows.stage_task import run_or_reuse
from stages.core import tracking
from stages.core.artifacts import data_root, json_digest, make_artifact
from stages.core.config import Compute, Frozen, JudgePairsConfig
from stages.core.config.feedback import NO_LOGINS, names_reviewer
from stages.core.contracts import JudgePairsInputs, JudgePairsOutputs
from stages.core.errors import UserError
from stages.core.feedback.judgments import Judgment
from stages.core.feedback.pairs import CandidatePair, write_pairs
from stages.core.form import parameter
from stages.core.schemas import read_jsonl

STAGE = "judge_pairs"
EXPERIMENT = "{}-judge"
"""MLflow experiment of these runs, by that of the queues. Not the same one: reviewers could look up
there what the judge said."""
NOTHING = "Nothing to judge"
"""State of a run that found no new pairs."""
SHOWN = {
    "num_judged": "pairs judged, each in both orders",
    "num_failed": "pairs without a verdict",
    "verdicts/a": "the reply shown as A is better",
    "verdicts/b": "the reply shown as B is better",
    "verdicts/tie": "ties, contradictions among them",
    "inconsistent_share": "share of the pairs about which it contradicts itself",
    "first_position_share": "share of its preferences for the reply shown first; 0.5 is fair",
    "num_gold": "gold pairs",
    "gold_accuracy": "share of the gold pairs that it answers as expected",
    "input_tokens": "tokens read",
    "output_tokens": "tokens written",
    "dollars": "cost, dollars",
}
"""What the table on the run's page says of each figure."""


class Asked(Frozen):
    """What the run's parameters show."""

    experiment: str
    queues: tuple[str, ...]
    judge_pairs: JudgePairsConfig


@flow(name="judge-pairs", flow_run_name="judge-pairs {experiment}", persist_result=False)
@refusals_as_states
def judge_pairs(
    config: Annotated[JudgePairsConfig, parameter("Settings")] = JudgePairsConfig(),
    experiment: Annotated[
        str, parameter("Experiment", "MLflow experiment that holds the review queues.")
    ] = "feedback",
    queues: Annotated[
        tuple[str, ...], parameter("Queues", "Names of review queues; none: all.")
    ] = (),
) -> Any:
    """Let a language model judge the pairs in review queues that no person has judged yet, and
    record its verdicts as AI's. What it has judged before is left out."""
    _check(config, queues)
    pairs = _new_pairs(experiment, queues, config.judge.model)
    if not pairs:
        return Completed(
            name=NOTHING,
            message=f"people or {config.judge.model} have judged all pairs of {experiment!r}",
        )
    asked = Asked(experiment=experiment, queues=queues, judge_pairs=config)
    results: chain.Results = {}
    place = EXPERIMENT.format(experiment)
    with chain.tracked_run(place, asked, f"judge-pairs {config.judge.model}", results) as run_id:
        inputs = stage_inputs(pairs)
        state = run_or_reuse.with_options(name=STAGE, task_run_name=STAGE)(
            config,
            inputs,
            Compute(),
            forced=False,
            parent_run_id=run_id,
            upstream=[],
            return_state=True,
        )
        result = results[STAGE] = state.result()
        outputs = JudgePairsOutputs.model_validate(result.outputs)
        rows = list(read_jsonl(outputs.judgments.locate()))
        judged = _judgments(rows, pairs, config.judge.model)
        number = tracking.record_judgments(experiment, judged, run_id)
        get_run_logger().info("%d judgments of %s recorded", number, config.judge.model)
    inputs.pairs[0].locate().unlink(missing_ok=True)
    create_markdown_artifact(
        _table(config.judge.model, result.metrics), key="judge-pairs", description="Judgments by AI"
    )
    return result.metrics


def stage_inputs(pairs: Sequence[CandidatePair]) -> JudgePairsInputs:
    """The pairs as a file, named after its content: another run that began at the same time with
    other pairs has another one."""
    digest = json_digest([pair.model_dump() for pair in pairs])[:12]
    file = data_root() / "cache" / "judge" / f"pairs-{digest}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_pairs(file, pairs)
    return JudgePairsInputs(pairs=(make_artifact("pairs", file),))


# ------------------------------------------------------------------------------------ helpers


def _check(config: JudgePairsConfig, queues: Sequence[str]) -> None:
    """
    Raises:
        UserError: the settings lack what only the user knows.
    """
    if not config.judge.url:
        raise UserError(
            "judge.url is empty: give the address of an endpoint that speaks OpenAI's protocol, "
            "such as http://localhost:8000/v1"
        )
    if not config.judge.model.strip():
        raise UserError("judge.model is empty: name the model that the endpoint serves")
    if any(map(names_reviewer, queues)):
        raise UserError(f"queues: {NO_LOGINS}")


def _new_pairs(experiment: str, queues: Sequence[str], model: str) -> list[CandidatePair]:
    """What neither a person nor this model has judged.

    Raises:
        UserError: there is no such experiment or queue.
    """
    known = {
        judgment.pair.pair_id
        for judgment in tracking.judgments(experiment)
        if (judgment.annotator_kind, judgment.annotator) == ("ai", model)
    }
    pending = tracking.pending_pairs(experiment, queues)
    return [pair for pair in pending if pair.pair_id not in known]


def _judgments(
    rows: Sequence[Mapping[str, Any]], pairs: Sequence[CandidatePair], model: str
) -> list[Judgment]:
    by_id = {pair.pair_id: pair for pair in pairs}
    now = datetime.now(UTC)
    return [
        Judgment(
            judgment_id="",  # it gets one when it is recorded
            trace_id="",
            queue="",
            pair=by_id[row["pair_id"]],
            verdict=row["verdict"],
            reason=row["reason"],
            annotator=model,
            annotator_kind="ai",
            created_at=now,
        )
        for row in rows
    ]


def _table(model: str, figures: Mapping[str, float]) -> str:
    lines = [f"| {text} | {figures[name]:.4g} |" for name, text in SHOWN.items() if name in figures]
    return f"Judgments by `{model}`:\n\n| figure | value |\n|---|---|\n" + "\n".join(lines) + "\n"
