"""Which judgments count, and what each of them says about a pair whichever side stood first."""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from stages.core.config import FeedbackSource
from stages.core.feedback.judgments import Judgment

Choice = Literal["first", "second", "tie", "both_bad"]
"""Of the two replies in the order of their texts: the same for a pair and its mirror image."""


def choice(judgment: Judgment) -> Choice:
    """The verdict, without regard to the sides on which the replies were shown."""
    if judgment.verdict in ("tie", "both_bad"):
        return "tie" if judgment.verdict == "tie" else "both_bad"
    pair = judgment.pair
    return "first" if (judgment.verdict == "a") == (pair.reply_a <= pair.reply_b) else "second"


def counting(judgments: Iterable[Judgment], source: FeedbackSource) -> list[Judgment]:
    """The judgments of the source's time and annotators, sorted by pair and time: of one annotator
    about one pair, the last."""
    since, until = moment(source.since), moment(source.until)
    last: dict[tuple[str, str, str], Judgment] = {}
    for judgment in sorted(judgments, key=lambda one: (one.created_at, one.judgment_id)):
        if source.annotators not in ("all", judgment.annotator_kind):
            continue
        if (since and judgment.created_at < since) or (until and judgment.created_at >= until):
            continue
        login = judgment.annotator.strip().lower()  # as MLflow's page takes it
        last[judgment.annotator_kind, login, judgment.pair.pair_id] = judgment
    return sorted(last.values(), key=lambda one: (one.pair.pair_id, one.created_at))


def moment(text: str) -> datetime.datetime | None:
    """A time of the configuration, UTC where it names no offset; None for none."""
    if not text:
        return None
    given = datetime.datetime.fromisoformat(text)
    return given if given.tzinfo else given.replace(tzinfo=datetime.UTC)


def by_pair(judgments: Sequence[Judgment]) -> dict[str, list[Judgment]]:
    """The judgments of each pair, in their order."""
    pairs: dict[str, list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        pairs[judgment.pair.pair_id].append(judgment)
    return dict(pairs)
