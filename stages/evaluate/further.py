"""Measures beside scores and losses, each of which may fail without the others: toxicity, refusals,
leaks, a judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from stages.core.config import Compute, EvaluateConfig
from stages.core.contracts import EvaluateInputs
from stages.core.errors import UserError
from stages.core.judge import Judgements, judge
from stages.core.models import pick_device
from stages.core.sequence_classifier import SequenceClassifier, load_sequence_classifier
from stages.core.wording import percent
from stages.evaluate import safety
from stages.evaluate.answers import Progress
from stages.evaluate.attempts import attempt
from stages.evaluate.measurements import CHAMPION, Judged, Measure, Missing, Total
from stages.evaluate.task import HELD_OUT, REFUSAL, TOXICITY, Task

JUDGED = (("policy", "sft"), ("policy", CHAMPION))
JUDGE_FILE = "judge_answers.jsonl"
MAX_FAILED_SHARE = 0.2
"""Of the pairs put to the judge: with more of them unanswered there is no win rate by it."""
Texts = Mapping[str, Mapping[str, list[str]]]
"""Replies by set of prompts and model."""


@dataclass
class Further:
    """What was found."""

    measures: dict[str, Measure] = field(default_factory=dict)
    """By the name of the metric."""
    totals: dict[str, Total] = field(default_factory=dict)
    judged: dict[tuple[str, str], Judged] = field(default_factory=dict)
    """By (first, second) model."""
    judge_dollars: float = 0.0


def measure_further(
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    compute: Compute,
    task: Task,
    texts: Texts,
    lengths: Mapping[str, Sequence[int]],
    progress: Progress,
    out_dir: Path,
    missing: list[Missing],
) -> Further:
    """Everything that the run allows; the rest is added to ``missing``.

    Args:
        lengths: tokens of each model's replies to the held-out prompts.
        out_dir: keeps the judge's answers, for an evaluation that is continued.
    """
    further = Further()
    progress.tell("classifier reads replies")
    _toxicity(config, inputs, compute, texts, further, missing)
    if REFUSAL in texts:
        further.measures["refusal_rate"] = Measure(
            "Refusals",
            "share of the replies to prompts that should be refused that open with a refusal "
            "(English phrases)",
            values={
                name: [float(safety.is_refusal(reply)) for reply in replies]
                for name, replies in texts[REFUSAL].items()
            },
        )
    _leaks(inputs, texts, further, missing)
    _judge(config, task, texts[HELD_OUT], lengths, progress, out_dir, further, missing)
    return further


# ------------------------------------------------------------------------------------ helpers


def _toxicity(
    config: EvaluateConfig,
    inputs: EvaluateInputs,
    compute: Compute,
    texts: Texts,
    further: Further,
    missing: list[Missing],
) -> None:
    artifact = inputs.classifier
    if artifact is None:
        reason = "the run has no classifier (collect.labelled names no data)"
        missing.append(Missing("toxic replies", reason))
        return
    label = config.safety.toxic_label

    def measures(prompts: str, classifier: SequenceClassifier, what: str) -> Measure:
        return Measure(
            f"Toxic replies to {what}",
            f"share to which the classifier gives “{label}” with more than one half",
            values={
                name: [
                    float(probability > safety.TOXIC_PROBABILITY)
                    for probability in safety.toxic_share(classifier, label, replies).probabilities
                ]
                for name, replies in texts[prompts].items()
            },
        )

    def found() -> dict[str, Measure]:
        classifier = load_sequence_classifier(artifact.locate(), pick_device(compute))
        names = {HELD_OUT: "toxic_share", TOXICITY: "prompted_toxic_share"}
        words = {HELD_OUT: "held-out prompts", TOXICITY: "toxicity prompts"}
        return {
            names[prompts]: measures(prompts, classifier, words[prompts])
            for prompts in names
            if prompts in texts
        }

    further.measures |= attempt("toxic replies", found, missing) or {}


def _leaks(inputs: EvaluateInputs, texts: Texts, further: Further, missing: list[Missing]) -> None:
    """Over all replies: whatever the prompt, nobody's data should come out."""
    artifact = inputs.datasets.personal_data
    what = "leaks of personal data"
    if artifact is None:
        missing.append(Missing(what, "cleaning kept no digests of the training records' data"))
        return

    def count() -> dict[str, float]:
        digests = safety.read_digests(artifact.locate())
        return {
            name: float(
                sum(
                    safety.leaks(reply, digests) > 0
                    for by_model in texts.values()
                    for reply in by_model[name]
                )
            )
            for name in texts[HELD_OUT]
        }

    found = attempt(what, count, missing)
    if found is None:
        return
    num_replies = sum(len(by_model["policy"]) for by_model in texts.values())
    further.totals["leaks"] = Total(
        "Leaks",
        "replies with an e-mail address, telephone, card or IP number of the training records, "
        f"of {num_replies} replies to all prompts",
        found,
    )


def _judge(
    config: EvaluateConfig,
    task: Task,
    texts: Mapping[str, list[str]],
    lengths: Mapping[str, Sequence[int]],
    progress: Progress,
    out_dir: Path,
    further: Further,
    missing: list[Missing],
) -> None:
    if not config.judge.url:
        missing.append(Missing("comparisons by a judge", "evaluate.judge.url is empty"))
        return
    prompts = task.prompt_sets[HELD_OUT].prompts

    def told(what: str, done: int, total: int) -> None:
        progress.tell(f"{what}: {done} of {total} questions")

    for first, second in JUDGED:
        if not {first, second} <= texts.keys():
            continue
        what = f"judge compares {first} and {second}"

        def compared(first: str = first, second: str = second, what: str = what) -> Judged:
            found = judge(
                config.judge,
                prompts,
                texts[first],
                texts[second],
                seed=config.seed,
                file=out_dir / JUDGE_FILE,
                on_answer=partial(told, what),
            )
            further.judge_dollars += found.dollars
            return _judged(found, lengths[first], lengths[second])

        progress.tell(what)
        judged = attempt(what, compared, missing)
        if judged is not None:
            further.judged[first, second] = judged


def _judged(
    found: Judgements, first_lengths: Sequence[int], second_lengths: Sequence[int]
) -> Judged:
    """
    Raises:
        UserError: there is not one outcome.
    """
    reasons = "; ".join(f"{reason} ({count}×)" for reason, count in found.failures.items())
    outcomes = [
        (index, outcome)
        for index, outcome in zip(found.indices, found.outcomes, strict=True)
        if outcome is not None
    ]
    num_asked = len(found.indices) - found.num_equal
    if not outcomes or (found.num_failed and found.num_failed == num_asked):
        raise UserError(f"no verdict on any pair: {found.stopped or reasons or 'no answer'}")
    # Equal replies are ties without a question: with many answers missing they would decide.
    if found.num_failed > MAX_FAILED_SHARE * num_asked:
        raise UserError(
            f"no verdict on {found.num_failed} of {num_asked} pairs, too many to trust the rest: "
            f"{found.stopped or reasons}"
        )
    note = (
        f"{len(outcomes)} of {len(found.indices)} pairs judged, each in both orders; "
        f"{found.num_inconsistent} contradictory verdicts count as ties, as do {found.num_equal} "
        "pairs of equal replies"
    )
    if found.first_position_share is not None:
        note += f"; {percent(found.first_position_share)} of its preferences went to the reply "
        note += "shown first"
    if found.num_failed:
        note += f"; {found.num_failed} pairs are left out: {reasons}"
    if found.stopped:
        note += f"; given up early: {found.stopped}"
    return Judged(
        outcomes=[outcome for _, outcome in outcomes],
        first_lengths=[first_lengths[index] for index, _ in outcomes],
        second_lengths=[second_lengths[index] for index, _ in outcomes],
        note=note + ".",
    )
