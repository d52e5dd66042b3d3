"""How good each annotator's judgments are, and whose are left out."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from stages.core.config import FeedbackSource, Frozen
from stages.core.feedback.judgments import AnnotatorKind, Judgment
from stages.core.feedback.votes import Choice, by_pair, choice

MIN_GOLD_PAIRS = 5
MIN_COMPARED_PAIRS = 10
"""Below so many pairs a share says too little to leave anybody out."""


class AnnotatorQuality(Frozen):
    """What the judgments of one annotator say of them."""

    annotator: str
    """Login or model, as in ``Judgment``: not to be written down but as pseudonym."""
    kind: AnnotatorKind
    num_judgments: int
    num_gold: int
    """Gold pairs judged."""
    gold_accuracy: float | None
    """Share of those that were answered as expected."""
    num_compared: int
    """Pairs on which the others have a majority."""
    agreement: float | None
    """Share of those on which the annotator is with it."""
    share_of_a: float | None
    """Of the verdicts for one side, those for A: with sides shuffled, about a half."""
    left_out: str = ""
    """Why the judgments do not count; empty: they do."""


def qualities(judgments: Sequence[Judgment], source: FeedbackSource) -> list[AnnotatorQuality]:
    """One entry for each annotator, sorted by kind and name.

    Args:
        judgments: one an annotator and pair (``votes.counting``).
    """
    compared: dict[tuple[AnnotatorKind, str], list[bool]] = defaultdict(list)
    for votes in by_pair(judgments).values():
        for vote in votes:
            majority = _majority_of_others(vote, votes)
            if majority is not None:
                is_same = choice(vote) == majority
                compared[vote.annotator_kind, vote.annotator].append(is_same)
    own: dict[tuple[AnnotatorKind, str], list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        own[judgment.annotator_kind, judgment.annotator].append(judgment)
    return [_quality(name, own[name], compared[name], source) for name in sorted(own)]


# ------------------------------------------------------------------------------------ helpers


def _majority_of_others(vote: Judgment, votes: Sequence[Judgment]) -> Choice | None:
    """What most of the other people say about the pair; to an AI, other AIs are compared where no
    person judged it. None: nobody else did, no choice leads, or it is a gold pair, easy on purpose.
    """
    if vote.pair.purpose == "gold":
        return None
    others = [other for other in votes if other is not vote]
    people = [other for other in others if other.annotator_kind == "human"]
    if not people and vote.annotator_kind == "human":
        return None
    ranked = Counter(map(choice, people or others)).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


def _quality(
    name: tuple[AnnotatorKind, str],
    judgments: Sequence[Judgment],
    compared: Sequence[bool],
    source: FeedbackSource,
) -> AnnotatorQuality:
    gold = [one for one in judgments if one.pair.purpose == "gold" and one.pair.expected]
    right = sum(one.verdict == one.pair.expected for one in gold)
    sides = [one.verdict for one in judgments if one.verdict in ("a", "b")]
    gold_accuracy, agreement = _share(right, len(gold)), _share(sum(compared), len(compared))
    reasons = []
    if len(gold) >= MIN_GOLD_PAIRS and (gold_accuracy or 0) < source.min_gold_accuracy:
        limit = f"below min_gold_accuracy={source.min_gold_accuracy:g}"
        reasons.append(f"{right} of {len(gold)} gold pairs as expected, {limit}")
    if len(compared) >= MIN_COMPARED_PAIRS and (agreement or 0) < source.min_agreement:
        limit = f"below min_agreement={source.min_agreement:g}"
        reasons.append(f"with the majority on {sum(compared)} of {len(compared)} pairs, {limit}")
    return AnnotatorQuality(
        annotator=name[1],
        kind=name[0],
        num_judgments=len(judgments),
        num_gold=len(gold),
        gold_accuracy=gold_accuracy,
        num_compared=len(compared),
        agreement=agreement,
        share_of_a=_share(sides.count("a"), len(sides)),
        left_out="; ".join(reasons),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
