"""How far annotators agree with each other."""

from collections.abc import Sequence
from typing import get_args

from stages.core.feedback.judgments import Judgment
from stages.core.feedback.votes import Choice, by_pair, choice

CHOICES = get_args(Choice)


def krippendorff_alpha(judgments: Sequence[Judgment]) -> float | None:
    """Krippendorff's alpha of the choices (nominal) over the pairs that two or more judged: 1 where
    all agree, 0 where they agree as often as by chance. Gold pairs, which are easy on purpose, are
    left out. None where it is undefined: no such pair, or one and the same choice everywhere.

    Krippendorff, Content Analysis, 4th edition 2018, chapter 12.
    """
    import krippendorff
    import numpy as np

    shared = [
        votes
        for votes in by_pair([one for one in judgments if one.pair.purpose != "gold"]).values()
        if len(votes) > 1
    ]
    names = sorted({(vote.annotator_kind, vote.annotator) for votes in shared for vote in votes})
    rows = {name: number for number, name in enumerate(names)}
    table = np.full((len(names), len(shared)), np.nan)
    for column, votes in enumerate(shared):
        for vote in votes:
            row = rows[vote.annotator_kind, vote.annotator]
            table[row, column] = CHOICES.index(choice(vote))
    if len(set(table[~np.isnan(table)].tolist())) < 2:
        return None
    return float(krippendorff.alpha(table, level_of_measurement="nominal"))


def num_shared(judgments: Sequence[Judgment]) -> int:
    """Pairs that two or more judged, gold pairs aside."""
    pairs = by_pair([one for one in judgments if one.pair.purpose != "gold"])
    return sum(len(votes) > 1 for votes in pairs.values())
