"""What a snapshot of judgments says of itself: figures, annotators by pseudonym, and the judgments
that it came from. No names of people."""

import datetime
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from stages.core.config import FeedbackSource, Frozen
from stages.core.errors import UserError
from stages.core.feedback.agreement import krippendorff_alpha, num_shared
from stages.core.feedback.annotators import AnnotatorQuality
from stages.core.feedback.judgments import AnnotatorKind
from stages.core.feedback.preferences import FeedbackData, Use
from stages.core.wording import number, percent

REPORT_FILE = "feedback.json"
"""In a snapshot of judgments."""
REPORTS = "feedback"
"""Folder of the stage collect with the reports on the snapshots that it read, each named after
``short_digest``."""


def short_digest(digest: str) -> str:
    """The part of a snapshot's digest that reports and the tags of runs are named by."""
    return digest[:12]


class UsedJudgment(Frozen):
    """Where a judgment lies in MLflow, and what became of it."""

    judgment_id: str
    trace_id: str
    use: Use


class FeedbackReport(Frozen):
    """The file ``feedback.json`` of a snapshot."""

    experiment: str
    """MLflow experiment of the queues."""
    num_judgments: int
    """Counted: one an annotator and pair."""
    by_kind: dict[AnnotatorKind, int]
    by_queue: dict[str, int]
    """By name of the round; "" has what came without one: AI, imported."""
    by_annotator: dict[str, int]
    """By pseudonym, or model."""
    annotators: tuple[AnnotatorQuality, ...]
    """People under their pseudonyms."""
    pairs: dict[Use, int]
    """Judged pairs by what became of them."""
    num_conflicts: int
    """Pairs on which annotators differ."""
    num_shared: int
    """Pairs that two or more judged, gold pairs aside."""
    alpha: dict[AnnotatorKind, float | None]
    """Krippendorff's alpha among people, and among models, those left out aside."""
    num_reserved_prompts: int
    """Prompts of the random share, judged or asked about."""
    first_at: datetime.datetime
    last_at: datetime.datetime
    """Of the counted judgments, UTC."""
    judgments: tuple[UsedJudgment, ...]
    """The counted ones, sorted by id."""


def make_report(
    data: FeedbackData, source: FeedbackSource, pseudonyms: Mapping[str, str]
) -> FeedbackReport:
    """The report on at least one judgment.

    Args:
        pseudonyms: of each person's login; a language model keeps its name.
    """
    counted = data.judgments
    heard = [one for one in counted if data.uses[one.judgment_id] not in ("left_out", "gold")]
    shown = [_under_pseudonym(one, pseudonyms) for one in data.annotators]
    by_annotator: Counter[str] = Counter()
    for one in shown:  # of one login in two spellings there are two
        by_annotator[one.annotator] += one.num_judgments
    kinds = sorted({one.annotator_kind for one in counted})
    by_kind = {kind: [one for one in heard if one.annotator_kind == kind] for kind in kinds}
    times = [one.created_at.astimezone(datetime.UTC) for one in counted]
    return FeedbackReport(
        experiment=source.experiment,
        num_judgments=len(counted),
        by_kind=Counter(one.annotator_kind for one in counted),
        by_queue=Counter(sorted(one.queue for one in counted)),
        by_annotator=by_annotator,
        annotators=tuple(sorted(shown, key=lambda one: (one.kind, one.annotator))),
        pairs=data.num_pairs,
        num_conflicts=data.num_conflicts,
        num_shared=num_shared(heard),
        alpha={kind: krippendorff_alpha(of_kind) for kind, of_kind in by_kind.items()},
        num_reserved_prompts=len(data.reserved),
        first_at=min(times),
        last_at=max(times),
        judgments=tuple(
            UsedJudgment(
                judgment_id=one.judgment_id,
                trace_id=one.trace_id,
                use=data.uses[one.judgment_id],
            )
            for one in sorted(counted, key=lambda judgment: judgment.judgment_id)
        ),
    )


def read_report(path: Path) -> FeedbackReport:
    """The report in a file.

    Raises:
        UserError: it is not there, or damaged.
    """
    try:
        return FeedbackReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = "damaged" if isinstance(error, ValidationError) else error.strerror
        raise UserError(f"{path}: {reason}; remove its folder and run again") from None


def log_lines(report: FeedbackReport) -> list[str]:
    """The pairs, the agreement and each annotator, for a log."""
    uses = ", ".join(f"{count} {use}".replace("_", " ") for use, count in report.pairs.items())
    alphas = [
        f"alpha of {'people' if kind == 'human' else 'models'} {number(alpha)}"
        for kind, alpha in report.alpha.items()
        if alpha is not None
    ]
    shared = ", ".join((f"{report.num_shared} of them judged by several", *alphas))
    first = f"{report.num_judgments} judgments of pairs: {uses or 'gold alone'}; {shared}"
    return [first, *map(_annotator_line, report.annotators)]


# ------------------------------------------------------------------------------------ helpers


def _annotator_line(one: AnnotatorQuality) -> str:
    parts = [f"{one.annotator}: {one.num_judgments} judgments"]
    if one.gold_accuracy is not None:
        parts.append(f"{percent(one.gold_accuracy)} of {one.num_gold} gold pairs as expected")
    if one.agreement is not None:
        parts.append(f"with the majority on {percent(one.agreement)} of {one.num_compared} pairs")
    if one.share_of_a is not None:
        parts.append(f"A in {percent(one.share_of_a)}")
    if one.left_out:
        parts.append(f"left out ({one.left_out})")
    return ", ".join(parts)


def _under_pseudonym(one: AnnotatorQuality, pseudonyms: Mapping[str, str]) -> AnnotatorQuality:
    name = pseudonyms[one.annotator] if one.kind == "human" else one.annotator
    return AnnotatorQuality.model_validate(one.model_dump() | {"annotator": name})
