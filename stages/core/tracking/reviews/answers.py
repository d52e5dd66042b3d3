"""What was answered about the pairs of an experiment: reading it, recording it, taking it back."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stages.core.errors import UserError
from stages.core.feedback.judgments import AnnotatorKind, Judgment
from stages.core.feedback.pairs import CandidatePair, Verdict
from stages.core.tracking.client import PatientClient, experiment_id, set_up
from stages.core.tracking.reviews.api import ask_traces, find
from stages.core.tracking.reviews.questions import (
    BETTER_ANSWER,
    STRENGTH,
    STRENGTHS,
    VERDICT,
    VERDICTS,
)
from stages.core.tracking.reviews.queues import Item, items
from stages.core.tracking.reviews.traces import (
    NewTrace,
    PublishedTrace,
    find_experiment,
    name_trace,
    pairs_of,
    publish,
    published,
    read_pairs,
    store_pairs,
)

KINDS: dict[str, AnnotatorKind] = {"HUMAN": "human", "LLM_JUDGE": "ai"}
SOURCES = {kind: source for source, kind in KINDS.items()}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Answer:
    """What one reviewer said about one trace."""

    trace: PublishedTrace
    annotator: str
    kind: AnnotatorKind
    verdict_id: str
    verdict: Verdict
    strength: int
    reason: str
    better_answer: str
    created_at: datetime


def published_pairs(experiment: str) -> list[CandidatePair]:
    """All pairs that people were ever asked about, or that were recorded with a judgment, each
    once, in the order of their publication."""
    return _each_once(list(published(find_experiment(experiment))))


def pending_pairs(
    experiment: str, queues: Sequence[str] = (), kind: AnnotatorKind = "human"
) -> list[CandidatePair]:
    """The pairs in queues that nobody of this kind has judged yet, each once."""
    found = find_experiment(experiment)
    traces = list(published(found))
    attached = items(found) if found else []
    done = {answer.trace.pair_id for answer in _answers(traces, attached) if answer.kind == kind}
    asked = [trace for trace in _of_queues(traces, attached, queues) if trace.queue]
    return _each_once([trace for trace in asked if trace.pair_id not in done])


def judgments(experiment: str, queues: Sequence[str] = ()) -> list[Judgment]:
    """All current judgments, the oldest first: one for each trace and reviewer.

    A person's answer in a queue counts when its item was completed by them; one in another's name
    does not, and is said. Where a queue was deleted its answers count as they are.

    Args:
        queues: names of rounds or of single queues; none: all, and what was recorded without one.

    Raises:
        UserError: there is no such experiment, or no such queue.
    """
    found = _existing(experiment)
    traces = list(published(found))
    attached = items(found)
    answers = list(_answers(_of_queues(traces, attached, queues), attached))
    shown = pairs_of({answer.trace.trace_id: answer.trace for answer in answers}.values())
    read = [
        Judgment(
            judgment_id=answer.verdict_id,
            trace_id=answer.trace.trace_id,
            queue=answer.trace.queue,
            pair=shown[answer.trace.trace_id],
            verdict=answer.verdict,
            strength=answer.strength,
            reason=answer.reason,
            better_answer=answer.better_answer,
            annotator=answer.annotator,
            annotator_kind=answer.kind,
            created_at=answer.created_at,
        )
        for answer in answers
        if answer.trace.trace_id in shown
    ]
    return sorted(read, key=lambda judgment: (judgment.created_at, judgment.judgment_id))


def count_judgments(
    experiment: str, since: datetime | None = None, kind: AnnotatorKind | None = None
) -> int:
    """How many judgments ``judgments`` would read, those after ``since`` or by this kind alone if
    it is given; 0 where there is no such experiment."""
    return sum(
        (since is None or at > since) and kind in (None, given_by)
        for given_by, at in judged_at(experiment)
    )


def judged_at(experiment: str) -> list[tuple[AnnotatorKind, datetime]]:
    """By whom and when each of the judgments was given that ``judgments`` would read; none where
    there is no such experiment."""
    found = find_experiment(experiment)
    if not found:
        return []
    answers = _answers(published(found), items(found))
    return [(answer.kind, answer.created_at) for answer in answers]


def record_judgments(experiment: str, rows: Sequence[Judgment], run_id: str) -> int:
    """Record judgments that were not given on the page: a model's, or imported ones. Of each
    annotator there is one about a pair; recorded again, it is left or replaced.

    Args:
        rows: ``judgment_id``, ``trace_id`` and ``queue`` are not looked at.
        run_id: of the MLflow run whose artifacts shall hold the pairs.

    Returns:
        How many are new or differ from before.
    """
    latest = {
        (row.annotator_kind, row.annotator.strip().lower(), row.pair.pair_id): row for row in rows
    }
    if not latest:
        return 0
    found = experiment_id(PatientClient(), experiment)
    file = store_pairs([row.pair for row in latest.values()], run_id)
    there = {trace.trace_id: trace for trace in published(found)}
    shown = pairs_of(there.values())
    answers = {answer.trace.trace_id: answer for answer in _answers(there.values(), ())}
    wanted, outdated = [], []
    for row in latest.values():
        trace = _recorded_trace(found, row, file)
        old = answers.get(trace.trace_id)
        if old is not None and shown.get(trace.trace_id) == row.pair and _same(old, row):
            continue
        if trace.trace_id in there:
            outdated.append(trace.trace_id)
        wanted.append((trace, row))
    if outdated:
        ask_traces("delete_traces", found, trace_ids=outdated)
    publish([trace for trace, _ in wanted])
    for trace, row in wanted:
        for assessment in _assessments(row):
            ask_traces("log_assessment", trace.trace_id, assessment)
    return len(wanted)


def tag_pairs(experiment: str, trace_ids: Sequence[str], tags: dict[str, str]) -> None:
    """Say on traces what their judgments were used for; those that are gone are passed over, and so
    is what has been said already."""
    there = {trace.trace_id: trace.tags for trace in published(find_experiment(experiment))}
    for trace_id in filter(there.__contains__, trace_ids):
        for key, value in tags.items():
            if there[trace_id].get(key) != value:
                ask_traces("set_trace_tag", trace_id, key, value)


# ------------------------------------------------------------------------------------ helpers


def _existing(experiment: str) -> str:
    found = find_experiment(experiment)
    if not found:
        raise UserError(
            f"no MLflow experiment is called {experiment!r}, so there are no judgments: open "
            "a queue first (rlhf feedback ask), or correct the name"
        )
    return found


def _each_once(traces: Sequence[PublishedTrace]) -> list[CandidatePair]:
    """The pairs that traces show, in the order of their files, which is that of asking."""
    shown = {pair.pair_id: pair for pair in reversed(pairs_of(traces).values())}
    places: dict[str, int] = {}
    for file in dict.fromkeys(trace.file for trace in traces):
        for pair_id in read_pairs(set_up(), file):
            places.setdefault(pair_id, len(places))
    return sorted(shown.values(), key=lambda pair: places[pair.pair_id])


def _of_queues(
    traces: Sequence[PublishedTrace], attached: Sequence[Item], queues: Sequence[str]
) -> list[PublishedTrace]:
    """The traces of these queues: by the name of the round, which outlives a queue, or of a queue
    that has them now."""
    if not queues:
        return list(traces)
    members = defaultdict(set)
    for item in attached:
        members[item.queue].add(item.trace_id)
    rounds = {trace.queue for trace in traces}
    for name in queues:
        if name not in rounds and name not in members:
            known = ", ".join(sorted(rounds - {""})[:5]) or "none"
            raise UserError(f"there is no review queue called {name!r}; there are: {known}")
    wanted = set().union(*(members[name] for name in queues))
    return [trace for trace in traces if trace.queue in queues or trace.trace_id in wanted]


def _answers(traces: Iterable[PublishedTrace], attached: Sequence[Item]) -> Iterator[_Answer]:
    """The current answers, those in another's name left out: of a trace in a queue, in that of
    somebody who did not complete it; of one that nobody was asked about, in that of somebody else
    than it was recorded for."""
    by_trace = defaultdict(list)
    for item in attached:
        by_trace[item.trace_id].append(item)
    spoofed = unsaid = 0
    for trace in traces:
        places = by_trace.get(trace.trace_id, [])
        completed = {row.completed_by.lower() for row in places if row.status == "complete"}
        for (kind, annotator), said in _by_annotator(trace).items():
            answer = _answer(trace, kind, annotator, said)
            if answer is None:
                unsaid += annotator.lower() in completed
                continue
            if places or not trace.queue:
                is_theirs = annotator.lower() in completed or _is_recorded(trace, kind, annotator)
            else:
                is_theirs = True  # their queue was deleted, and with it who completed what
            if is_theirs:
                yield answer
            else:
                # Where nobody has completed the item the answer is not given yet.
                spoofed += bool(completed) or not trace.queue
    if spoofed:
        log.warning(
            "warning: %d answers are in another name than that of who completed the review, and "
            "are not counted",
            spoofed,
        )
    if unsaid:
        log.warning(
            "warning: %d reviews were submitted without saying which answer is better, and are not "
            "counted: open them on the page, answer, and save",
            unsaid,
        )


def _by_annotator(trace: PublishedTrace) -> dict[tuple[AnnotatorKind, str], dict[str, Any]]:
    """By kind and name of who said it, the latest valid assessments by their names."""
    found: dict[tuple[AnnotatorKind, str], dict[str, Any]] = defaultdict(dict)
    for assessment in sorted(trace.assessments, key=lambda row: row.last_update_time_ms or 0):
        kind = KINDS.get(assessment.source.source_type)
        if kind is not None and assessment.valid is not False:
            found[kind, assessment.source.source_id][assessment.name] = assessment
    return found


def _answer(
    trace: PublishedTrace, kind: AnnotatorKind, annotator: str, said: dict[str, Any]
) -> _Answer | None:
    verdict = VERDICTS.get(_text(said.get(VERDICT)))
    if verdict is None:
        return None
    given = said[VERDICT]
    return _Answer(
        trace=trace,
        annotator=annotator,
        kind=kind,
        verdict_id=given.assessment_id,
        verdict=verdict,
        strength=STRENGTHS.get(_text(said.get(STRENGTH)), 0),
        reason=(given.rationale or "").strip(),
        better_answer=_text(said.get(BETTER_ANSWER)).strip(),
        created_at=datetime.fromtimestamp(given.last_update_time_ms / 1000, UTC),
    )


def _text(assessment: Any) -> str:
    value = None if assessment is None else assessment.value
    return value if isinstance(value, str) else ""


def _recorded_trace(experiment_id: str, row: Judgment, file: str) -> NewTrace:
    annotator = (row.annotator_kind, row.annotator.strip().lower())
    return NewTrace(row.pair, file, "", 0, 0, experiment_id, annotator)


def _is_recorded(trace: PublishedTrace, kind: AnnotatorKind, annotator: str) -> bool:
    where = (trace.experiment_id, trace.pair_id, "", 0, kind, annotator.strip().lower())
    return trace.trace_id == name_trace(*where)


def _same(old: _Answer, new: Judgment) -> bool:
    return (old.verdict, old.strength, old.reason, old.better_answer) == (
        (new.verdict, new.strength, new.reason.strip(), new.better_answer.strip())
    )


def _assessments(row: Judgment) -> Iterator[Any]:
    """The verdict comes last: an answer without it does not count, so it is whole or nothing."""
    said = [
        (BETTER_ANSWER, row.better_answer, None),
        (STRENGTH, {number: word for word, number in STRENGTHS.items()}.get(row.strength), None),
        (VERDICT, {verdict: label for label, verdict in VERDICTS.items()}[row.verdict], row.reason),
    ]
    source = find("AssessmentSource")(SOURCES[row.annotator_kind], row.annotator)
    when = int(row.created_at.timestamp() * 1000)
    for name, value, rationale in said:
        if value:
            yield find("Feedback")(
                name=name,
                value=value,
                source=source,
                rationale=rationale or None,
                create_time_ms=when,
                last_update_time_ms=when,
            )
