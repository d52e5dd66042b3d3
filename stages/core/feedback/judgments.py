"""What somebody answered about a pair."""

from datetime import datetime
from typing import Literal

from stages.core.config import Frozen
from stages.core.feedback.pairs import CandidatePair, Verdict

AnnotatorKind = Literal["human", "ai"]


class Judgment(Frozen):
    """One reviewer's answer about one pair. There is one for each reviewer and trace: a changed
    answer replaces the one before."""

    judgment_id: str
    """Of the assessment in MLflow that holds the verdict."""
    trace_id: str
    """The pair as it was shown. A pair that several are asked about has a trace for each."""
    queue: str
    """Name of the review queue; empty where there is none (AI, imported)."""
    pair: CandidatePair
    verdict: Verdict
    strength: int = 0
    """1 slightly, 2 clearly, 3 much better; 0: not said."""
    reason: str = ""
    better_answer: str = ""
    """A reply that the reviewer wrote; empty for none."""
    annotator: str
    """Login of the person, or the model's name. Personal data: never logged, never in a snapshot
    but as ``pseudonym``."""
    annotator_kind: AnnotatorKind = "human"
    created_at: datetime
    """When the verdict was given or last changed, UTC."""
