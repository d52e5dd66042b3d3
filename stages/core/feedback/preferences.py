"""From judgments to what models learn from: preferences, demonstrations and prompts.

A pair gives one preference at most. Where people and a language model judged it, people decide;
gold pairs are never data; pairs of the random share are held out, and no prompt of that share is
in the training data.

The margin is the mean strength that the annotators who prefer the chosen reply gave (1 slightly, 2
clearly, 3 much better, as in Llama 2, Touvron et al. 2023, appendix A.3.3; 1 where none is said).
With ``conflicts: keep`` it is multiplied by the lead of those annotators: (for - against) / all,
where ties and both-bad are in all.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from stages.core.config import FeedbackSource
from stages.core.feedback.annotators import AnnotatorQuality, qualities
from stages.core.feedback.judgments import AnnotatorKind, Judgment
from stages.core.feedback.pairs import CandidatePair
from stages.core.feedback.votes import by_pair, choice, counting
from stages.core.schemas import DataKind, encode_row, parse_row, prompt_key

Row = dict[str, Any]
Outcome = Literal["preference", "tie", "both_bad", "dropped"]
Use = Literal[
    "train", "held_out", "reserved", "gold", "tie", "both_bad", "dropped", "unusable", "overruled",
    "left_out",
]  # fmt: skip
"""What became of a judgment. reserved: its prompt is of the random share, its pair is not; dropped:
annotators differ; overruled: by a person, of an AI's; left_out: with all of its annotator's."""

SOURCES = {"human": "feedback:human", "ai": "feedback:ai"}
"""Column ``source`` of the preferences, by who judged."""


class Decision(NamedTuple):
    """What the annotators of one pair say together."""

    outcome: Outcome
    chosen: str = ""
    rejected: str = ""
    margin: float = 0.0
    is_conflict: bool = False
    """Whether they differ."""


@dataclass
class FeedbackData:
    """The rows that judgments give, in the shapes of ``stages.core.schemas``, sorted."""

    preferences: list[Row] = field(default_factory=list)
    preferences_held_out: list[Row] = field(default_factory=list)
    sft: list[Row] = field(default_factory=list)
    sft_held_out: list[Row] = field(default_factory=list)
    prompts: list[Row] = field(default_factory=list)
    prompts_held_out: list[Row] = field(default_factory=list)
    reserved: list[Row] = field(default_factory=list)
    """The prompts of the random share, normalised: no training record of any kind may have one."""
    uses: dict[str, Use] = field(default_factory=dict)
    """What became of each counted judgment, by its id."""
    judgments: list[Judgment] = field(default_factory=list)
    """Those that were counted: one an annotator and pair."""
    annotators: list[AnnotatorQuality] = field(default_factory=list)
    num_conflicts: int = 0
    """Pairs on which annotators differ."""
    num_pairs: Counter[Use] = field(default_factory=Counter)
    """Judged pairs by what became of them."""


def feedback_data(
    judgments: Iterable[Judgment],
    source: FeedbackSource,
    pseudonyms: Mapping[str, str],
    published: Iterable[CandidatePair] = (),
) -> FeedbackData:
    """What the source takes of the judgments. Equal judgments give equal rows in equal order.

    Args:
        judgments: those in the source's queues; its other settings are applied here.
        pseudonyms: of each person's login; a language model keeps its name.
        published: pairs that people were asked about. Those of the random share keep their prompts
            out of training even while nobody has judged them.
    """
    judgments = list(judgments)
    pairs = [*(judgment.pair for judgment in judgments), *published]
    reserved = {_key(pair) for pair in pairs if pair.purpose == "random"}
    gold = {pair.pair_id for pair in pairs if pair.purpose == "gold"}
    counted = counting(judgments, source)
    data = FeedbackData(judgments=counted, annotators=qualities(counted, source))
    data.reserved = [{"prompt": key} for key in sorted(reserved)]
    left_out = {(one.kind, one.annotator) for one in data.annotators if one.left_out}
    for votes in by_pair(counted).values():
        heard = _heard(votes, left_out, gold, data)
        if heard:
            _take_pair(heard, source, pseudonyms, reserved, data)
    data.sft, data.sft_held_out = map(_distinct, (data.sft, data.sft_held_out))
    data.prompts, data.prompts_held_out = map(_distinct, (data.prompts, data.prompts_held_out))
    return data


def decide(votes: Sequence[Judgment], conflicts: Literal["majority", "drop", "keep"]) -> Decision:
    """What the judgments of one pair, at least one, say together (see ``FeedbackSource``).

    Annotators differ where some prefer a reply and others do not, or prefer the other one; of tie
    and both bad, which both give no preference, the commoner one counts.
    """
    choices = Counter(map(choice, votes))
    first, second = choices["first"], choices["second"]
    neither = choices["tie"] + choices["both_bad"]
    nothing: Outcome = "both_bad" if choices["both_bad"] > choices["tie"] else "tie"
    is_conflict = sum(map(bool, (first, second, neither))) > 1
    if not first and not second:
        return Decision(nothing)
    if is_conflict and conflicts == "drop":
        return Decision("dropped", is_conflict=True)
    most = max(first, second)
    if conflicts == "majority" and neither > most:
        return Decision(nothing, is_conflict=True)
    if first == second or (conflicts == "majority" and neither == most):
        return Decision("dropped", is_conflict=True)
    winner = "first" if first > second else "second"
    strengths = [vote.strength or 1 for vote in votes if choice(vote) == winner]
    margin = sum(strengths) / len(strengths)
    if conflicts == "keep":
        margin *= abs(first - second) / len(votes)
    replies = sorted((votes[0].pair.reply_a, votes[0].pair.reply_b))
    chosen, rejected = replies if winner == "first" else reversed(replies)
    return Decision("preference", chosen, rejected, margin, is_conflict)


# ------------------------------------------------------------------------------------ helpers


def _heard(
    votes: Sequence[Judgment],
    left_out: set[tuple[AnnotatorKind, str]],
    gold: set[str],
    data: FeedbackData,
) -> list[Judgment]:
    """The judgments of one pair that decide about it; the others' use is noted."""
    heard = []
    for vote in votes:
        if vote.pair.pair_id in gold:  # an imported judgment may be about one, too
            data.uses[vote.judgment_id] = "gold"
        elif (vote.annotator_kind, vote.annotator) in left_out:
            data.uses[vote.judgment_id] = "left_out"
        else:
            heard.append(vote)
    people = [vote for vote in heard if vote.annotator_kind == "human"]
    if people:
        data.uses |= {vote.judgment_id: "overruled" for vote in heard if vote not in people}
    return people or heard


def _take_pair(
    votes: Sequence[Judgment],
    source: FeedbackSource,
    pseudonyms: Mapping[str, str],
    reserved: set[str],
    data: FeedbackData,
) -> None:
    """Add what one pair gives: a preference, demonstrations, its prompt."""
    prompt = votes[0].pair.prompt
    is_held_out = any(vote.pair.purpose == "random" for vote in votes)
    is_reserved = _key(votes[0].pair) in reserved
    decision = decide(votes, source.conflicts)
    data.num_conflicts += decision.is_conflict
    use: Use = "unusable"
    if decision.outcome != "preference":
        use = decision.outcome
    elif row := _parsed("preferences", _preference(prompt, decision, votes, pseudonyms)):
        use = "held_out" if is_held_out else "reserved" if is_reserved else "train"
        rows = {"train": data.preferences, "held_out": data.preferences_held_out}
        rows.get(use, []).append(row)
    data.num_pairs[use] += 1
    data.uses |= {vote.judgment_id: use for vote in votes}
    asked = _parsed("prompts", {"prompt": prompt})
    if asked:
        (data.prompts_held_out if is_reserved else data.prompts).append(asked)
    for vote in votes:
        if not vote.better_answer.strip() or (is_reserved and not is_held_out):
            continue
        shown = _parsed("sft", {"prompt": prompt, "completion": vote.better_answer})
        if shown:
            (data.sft_held_out if is_held_out else data.sft).append(shown)


def _preference(
    prompt: str | list[dict[str, str]],
    decision: Decision,
    votes: Sequence[Judgment],
    pseudonyms: Mapping[str, str],
) -> Row:
    names = {
        pseudonyms[vote.annotator] if vote.annotator_kind == "human" else vote.annotator
        for vote in votes
    }
    return {
        "prompt": prompt,
        "chosen": decision.chosen,
        "rejected": decision.rejected,
        "annotator": ", ".join(sorted(names)),
        "created_at": max(vote.created_at for vote in votes),
        "margin": decision.margin,
        "source": SOURCES[votes[0].annotator_kind],
    }


def _parsed(kind: DataKind, fields: Row) -> Row | None:
    """The row as all data of its kind is; None where its texts cannot be one, such as equal or
    empty replies."""
    try:
        return parse_row(kind, fields)
    except ValueError:
        return None


def _distinct(rows: Iterable[Row]) -> list[Row]:
    """The rows sorted, equal ones once."""
    by_line = {encode_row(row): row for row in rows}
    return [by_line[line] for line in sorted(by_line)]


def _key(pair: CandidatePair) -> str:
    return prompt_key("prompts", {"prompt": pair.prompt})
