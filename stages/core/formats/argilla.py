"""Exports of Argilla: fields that annotators saw, and their answers to questions about them.

Three shapes: nested (2.x ``to_list``, 1.x ``to_dict``) with ``fields``, ``responses`` and
``suggestions``; flat (2.x ``to_datasets``) with ``<question>.responses`` and
``<question>.suggestion``; flat (1.x ``format_as("datasets")``) with a list of answers in the column
``<question>`` and ``<question>-suggestion``.

Answers that a person submitted count; to a question without any, the suggestion does.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from stages.core.formats.format import Fields, Format, Rows, as_number, ranked_pairs

PROMPTS = ("prompt", "instruction", "question", "query", "input", "chat", "messages")
REPLIES = ("response", "completion", "answer", "reply", "generation", "output", "candidate",
           "chosen", "rejected", "correct")  # fmt: skip
"""How the names of fields and questions begin that hold replies."""


class Answer(NamedTuple):
    """What one annotator, or a suggestion (""), said to one question."""

    value: Any
    annotator: str = ""


class Annotated(NamedTuple):
    """A record of any of the three shapes."""

    fields: dict[str, Any]
    answers: dict[str, list[Answer]]
    """By the name of the question."""


# ----------------------------------------------------------------------------------- the shapes


def _is_nested(fields: Fields) -> bool:
    has_answers = "responses" in fields or "suggestions" in fields
    return has_answers and isinstance(fields.get("fields"), dict)


def _is_flat(fields: Fields) -> bool:
    return any(name.endswith((".responses", ".suggestion")) for name in fields)


def _is_flat_list(fields: Fields) -> bool:
    return any(
        name.endswith("-suggestion") and isinstance(fields.get(name[: -len("-suggestion")]), list)
        for name in fields
    )


def read_annotated(fields: Fields) -> Annotated:
    """A record of any shape.

    Raises:
        ValueError: it is of none.
    """
    if _is_nested(fields):
        return _nested(fields)
    if _is_flat(fields):
        return _flat(fields)
    if _is_flat_list(fields):
        return _flat_list(fields)
    raise ValueError("there are neither responses nor suggestions")


def _nested(fields: Fields) -> Annotated:
    answers: dict[str, list[Answer]] = {}
    responses = fields.get("responses")
    if isinstance(responses, dict):  # 2.x: by question
        for question, given in responses.items():
            answers[question] = [_answer(item) for item in _submitted(given)]
    else:  # 1.x: by annotator
        for response in _submitted(responses):
            for question, item in _as_object(response.get("values")).items():
                value = item.get("value") if isinstance(item, dict) else item
                answer = Answer(value, str(response.get("user_id") or ""))
                answers.setdefault(question, []).append(answer)
    suggestions = fields.get("suggestions")
    if isinstance(suggestions, list):
        suggestions = {
            str(item.get("question_name")): item for item in suggestions if isinstance(item, dict)
        }
    for question, item in _as_object(suggestions).items():
        value = item.get("value") if isinstance(item, dict) else item
        if not answers.get(question) and value is not None:
            answers[question] = [Answer(value)]
    return Annotated(_as_object(fields["fields"]), answers)


def _flat(fields: Fields) -> Annotated:
    answers: dict[str, list[Answer]] = {}
    for name in fields:
        question, _, part = name.rpartition(".")
        if part == "responses":
            users = _as_list(fields.get(f"{name}.users"))
            states = _as_list(fields.get(f"{name}.status"))
            answers[question] = [
                Answer(value, str(users[number]) if number < len(users) else "")
                for number, value in enumerate(_as_list(fields[name]))
                if number >= len(states) or states[number] == "submitted"
            ]
    for name, value in fields.items():
        question, _, part = name.rpartition(".")
        if part == "suggestion" and value is not None and not answers.get(question):
            answers[question] = [Answer(value)]
    return Annotated({name: fields[name] for name in fields if "." not in name}, answers)


def _flat_list(fields: Fields) -> Annotated:
    ending = "-suggestion"
    questions = [name[: -len(ending)] for name in fields if name.endswith(ending)]
    answers: dict[str, list[Answer]] = {}
    for question in questions:
        answers[question] = [_answer(item) for item in _submitted(fields.get(question))]
        suggested = fields.get(question + ending)
        if not answers[question] and suggested is not None:
            answers[question] = [Answer(suggested)]
    endings = (ending, f"{ending}-metadata")
    others = {
        name: fields[name]
        for name in fields
        if name not in questions and not name.endswith(endings)
    }
    return Annotated(others, answers)


def _as_object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _submitted(responses: object) -> list[dict[str, Any]]:
    """The responses that are not drafts and were not discarded."""
    return [
        item
        for item in _as_list(responses)
        if isinstance(item, dict) and item.get("status") in (None, "submitted")
    ]


def _answer(item: dict[str, Any]) -> Answer:
    return Answer(item.get("value"), str(item.get("user_id") or ""))


# ------------------------------------------------------------------------------------- the rows


def _prompt(record: Annotated) -> Any:
    for name in PROMPTS:
        if record.fields.get(name):
            return record.fields[name]
    raise ValueError(f"no field is a prompt: none is called {', '.join(PROMPTS)}")


def _replies(record: Annotated) -> dict[str, str]:
    """The replies that annotators compared, by the field's plain name."""
    return {
        _plain(name): text
        for name, text in record.fields.items()
        if isinstance(text, str) and text.strip() and name.lower().startswith(REPLIES)
    }


def _plain(name: object) -> str:
    """A name without what tells "response-1" from "response_1"."""
    return re.sub(r"[\W_]", "", str(name).lower())


def _ranks(value: Any, names: Iterable[str]) -> dict[str, float]:
    """The rank of each reply that an answer names, from 1; {}: the answer ranks none.

    A ranking lists ``{"value": name, "rank": n}`` or names from best to worst; a label names the
    best reply, or ends its name ("A" for response_a).
    """
    names = list(names)
    if isinstance(value, dict) and isinstance(value.get("value"), list):  # as a table writes it
        value = [
            {"value": name, "rank": rank}
            for name, rank in zip(value["value"], _as_list(value.get("rank")), strict=False)
        ]
    if isinstance(value, list):
        entries = [
            (item.get("value"), as_number(item.get("rank")))
            if isinstance(item, dict)
            else (item, float(number))
            for number, item in enumerate(value, 1)
        ]
        ranks = {_plain(name): rank for name, rank in entries if rank is not None}
        return {name: rank for name, rank in ranks.items() if name in names}
    if not isinstance(value, str) or not _plain(value):
        return {}
    best = [name for name in names if name == _plain(value)]
    best = best or [name for name in names if name.endswith(_plain(value))]
    if len(best) != 1:
        return {}
    return {name: 1.0 if name == best[0] else 2.0 for name in names}


def _pairs(fields: Fields) -> Rows:
    record = read_annotated(fields)
    replies, prompt = _replies(record), _prompt(record)
    rows: Rows = []
    for answers in record.answers.values():
        for answer in answers:
            ranks = _ranks(answer.value, replies)
            pairs = ranked_pairs(prompt, [(rank, replies[name]) for name, rank in ranks.items()])
            rows += [row | {"annotator": answer.annotator or None} for row in pairs]
    return rows


def _demonstrations(fields: Fields) -> Rows:
    """The reply that an annotator wrote, else the best ranked, else the only one."""
    record = read_annotated(fields)
    prompt, replies = _prompt(record), _replies(record)
    for question, answers in record.answers.items():
        if question.lower().startswith(REPLIES):
            written = [item.value for item in answers if isinstance(item.value, str)]
            if written and not _ranks(written[0], replies):
                return [{"prompt": prompt, "completion": written[0]}]
    for pair in _pairs(fields)[:1]:
        return [{"prompt": prompt, "completion": pair["chosen"]}]
    if len(replies) == 1:
        return [{"prompt": prompt, "completion": next(iter(replies.values()))}]
    return []


FORMATS = (
    Format(
        "Argilla",
        "fields, responses, suggestions",
        lambda fields: _is_nested(fields) or _is_flat(fields) or _is_flat_list(fields),
        {
            "sft": _demonstrations,
            "preferences": _pairs,
            "prompts": lambda fields: [{"prompt": _prompt(read_annotated(fields))}],
        },
    ),
)
