"""How many judgments there are that no policy has learned from yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flows.servers import mlflow_address
from stages.core import tracking
from stages.core.feedback.judgments import AnnotatorKind


@dataclass(frozen=True)
class NewJudgments:
    """What has been judged since a run last learned from it."""

    experiment: str
    count: int
    last: tracking.Learned | None
    """The run that has learned from the judgments before; None where none has."""
    given: Mapping[str, int]
    """All judgments, by those of the kinds that count."""

    @property
    def text(self) -> str:
        """The count, since when, and where more can be given."""
        noun = "judgment" if self.count == 1 else "judgments"
        since = "in all"
        if self.last is not None:
            since = (
                f"since {self.last.until:%Y-%m-%d %H:%M} UTC, when the last was given that version "
                f"{self.last.version} of {tracking.POLICY} learned from"
            )
        page = tracking.experiment_page(self.experiment, "review-queue")
        where = mlflow_address() + page if page else "rlhf feedback ask opens a queue"
        return f"{self.count} new {noun} of {self.experiment!r}, {since}; queue: {where}"


def new_judgments(
    experiment: str, kinds: Sequence[AnnotatorKind], pipeline: str = ""
) -> NewJudgments:
    """The judgments of the experiment ``experiment`` that are new, or changed, since the last run
    that learned from them has finished.

    Args:
        kinds: whose judgments count.
        pipeline: only runs of this experiment count; empty: those of any.
    """
    last = tracking.last_learned(experiment, pipeline)
    given = tracking.judged_at(experiment)  # once: it reads all of them
    by_kind = {kind: [at for given_by, at in given if given_by == kind] for kind in kinds}
    count = sum(_new(kind, times, last) for kind, times in by_kind.items())
    return NewJudgments(experiment, count, last, {kind: len(by_kind[kind]) for kind in by_kind})


# ------------------------------------------------------------------------------------ helpers


def _new(kind: str, given: Sequence[datetime], last: tracking.Learned | None) -> int:
    """How many of the judgments by one kind of annotators are new since ``last``."""
    if last is None:
        return len(given)
    # Imported ones keep the time at which they were given, which may be long ago.
    more = len(given) - last.seen.get(kind, 0)
    return max(sum(at > last.until for at in given), more)
