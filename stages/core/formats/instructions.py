"""Formats with an instruction and, apart from it, what the instruction is about.

Alpaca: ``instruction``, ``input``, ``output``, and in LLaMA-Factory's files ``system`` and
``history``; Dolly: ``instruction``, ``context``, ``response``; pairs of replies to either or to a
question; and the plain two columns that most others write.
"""

from collections.abc import Callable
from typing import Any

from stages.core.formats.format import Converter, Fields, Format, Rows, of_pairs


def _text(fields: Fields, name: str) -> str:
    """
    Raises:
        ValueError: the column is missing or no text.
    """
    value = fields.get(name)
    if value is None:
        raise ValueError(f"column {name} missing")
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a string")
    return value


def _instruction(fields: Fields, name: str, about: str) -> Any:
    """The prompt: instruction and what it is about as two paragraphs; with earlier turns or a
    system message as messages."""
    instruction = _text(fields, name)
    matter = _text(fields, about) if about and fields.get(about) is not None else ""
    prompt = f"{instruction}\n\n{matter}" if matter.strip() else instruction
    history = fields.get("history") or []
    if not isinstance(history, list):
        raise ValueError("history is not a list")
    messages: list[dict[str, str]] = []
    if fields.get("system"):
        messages.append({"role": "system", "content": _text(fields, "system")})
    for turn in history:
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            raise ValueError("history has a turn that is no pair of texts")
        messages += [
            {"role": role, "content": content}
            for role, content in zip(("user", "assistant"), turn, strict=True)
        ]
    return [*messages, {"role": "user", "content": prompt}] if messages else prompt


def _demonstration(name: str, about: str, reply: str) -> Converter:
    def rows(fields: Fields) -> Rows:
        prompt = _instruction(fields, name, about)
        return [{"prompt": prompt, "completion": _text(fields, reply)}]

    return rows


def _prompt(name: str, about: str) -> Converter:
    return lambda fields: [{"prompt": _instruction(fields, name, about)}]


def _pairs(name: str, about: str, chosen: str, rejected: str) -> Converter:
    def rows(fields: Fields) -> Rows:
        prompt = _instruction(fields, name, about)
        return [
            {"prompt": prompt, "chosen": _text(fields, chosen), "rejected": _text(fields, rejected)}
        ]

    return rows


def _has(*names: str) -> Callable[[Fields], bool]:
    return lambda fields: all(isinstance(fields.get(name), str) for name in names)


FORMATS = (
    Format(
        "Alpaca pairs",
        "instruction, input, chosen, rejected",
        _has("instruction", "chosen", "rejected"),
        of_pairs(_pairs("instruction", "input", "chosen", "rejected")),
    ),
    Format(
        "question pairs",
        "question, response_chosen, response_rejected",
        _has("question", "response_chosen", "response_rejected"),
        of_pairs(_pairs("question", "", "response_chosen", "response_rejected")),
    ),
    Format(
        "Alpaca",
        "instruction, input, output",
        _has("instruction", "output"),
        {
            "sft": _demonstration("instruction", "input", "output"),
            "prompts": _prompt("instruction", "input"),
        },
    ),
    Format(
        "Dolly",
        "instruction, context, response",
        _has("instruction", "context", "response"),
        {
            "sft": _demonstration("instruction", "context", "response"),
            "prompts": _prompt("instruction", "context"),
        },
    ),
    *(
        Format(
            f"{ours} and {theirs}",
            f"{ours}, {theirs}",
            _has(ours, theirs),
            {"sft": _demonstration(ours, "", theirs), "prompts": _prompt(ours, "")},
        )
        for ours, theirs in (
            ("instruction", "response"),
            ("prompt", "response"),
            ("question", "answer"),
        )
    ),
)
