"""The types of data set that TRL's trainers take: standard (texts), conversational (messages)."""

from collections.abc import Callable

from stages.core.formats.format import Fields, Format, Rows, of_pairs, unchanged


def _has(*names: str, kind: type) -> Callable[[Fields], bool]:
    return lambda fields: all(isinstance(fields.get(name), kind) for name in names)


def _implicit(fields: Fields) -> bool:
    return fields.get("prompt") is None and _has("chosen", "rejected", kind=list)(fields)


def _judged(fields: Fields) -> Rows:
    """Unpaired preferences: single replies judged good or bad."""
    if fields.get("label") is not True:
        raise ValueError("label is not true: a reply that was judged bad is not to be learned")
    return unchanged(fields)


def _is_judged(fields: Fields) -> bool:
    return isinstance(fields.get("label"), bool) and "prompt" in fields and "completion" in fields


PAIRS = of_pairs(unchanged)
PAIRS_WITH_PROMPT = {**PAIRS, "prompts": unchanged}

FORMATS = (
    Format(
        "TRL unpaired preference",
        "prompt, completion, label",
        _is_judged,
        {"sft": _judged, "prompts": unchanged},
    ),
    Format(
        "TRL preference",
        "prompt, chosen, rejected",
        _has("prompt", "chosen", "rejected", kind=str),
        PAIRS_WITH_PROMPT,
    ),
    Format(
        "TRL conversational preference",
        "prompt, chosen, rejected as messages",
        lambda fields: (
            fields.get("prompt") is not None and _has("chosen", "rejected", kind=list)(fields)
        ),
        PAIRS_WITH_PROMPT,
    ),
    Format(
        "TRL conversational preference, implicit prompt",
        "chosen, rejected as messages",
        _implicit,
        PAIRS,
    ),
    Format(
        "TRL prompt-completion",
        "prompt, completion",
        _has("prompt", "completion", kind=str),
        {"sft": unchanged, "prompts": unchanged},
    ),
    Format(
        "TRL conversational prompt-completion",
        "prompt, completion as messages",
        _has("prompt", "completion", kind=list),
        {"sft": unchanged, "prompts": unchanged},
    ),
    Format("TRL prompt-only", "prompt", lambda fields: "prompt" in fields, {"prompts": unchanged}),
)
