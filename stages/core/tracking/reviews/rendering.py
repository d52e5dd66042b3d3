"""A pair as MLflow's page shows it: the conversation, then both answers, as text alone."""

import re
from typing import Any

from stages.core.feedback.pairs import CandidatePair

MAX_LINES = 80
MAX_CHARACTERS = 8000
"""Of each answer on the page: answer B stays within reach. The pairs' file holds all of it."""


def messages(pair: CandidatePair) -> list[dict[str, str]]:
    """The prompt as a chat."""
    if isinstance(pair.prompt, str):
        return [{"role": "user", "content": as_text(pair.prompt)}]
    return [{"role": turn["role"], "content": as_text(turn["content"])} for turn in pair.prompt]


def both_answers(pair: CandidatePair) -> str:
    """Markdown: answer A, a rule, answer B."""
    return f"# Answer A\n\n{as_text(pair.reply_a)}\n\n---\n\n# Answer B\n\n{as_text(pair.reply_b)}"


def as_text(text: str) -> str:
    """Markdown that shows ``text`` letter for letter, whatever is in it: a block of code whose
    fence is longer than any row of backticks inside."""
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    shown, note = cut(text)
    return f"{fence}text\n{shown}\n{fence}{note}"


def cut(text: str) -> tuple[str, str]:
    """The beginning of a long text, and a note of what is left out."""
    lines = text.splitlines() or [""]
    shown = "\n".join(lines[:MAX_LINES])[:MAX_CHARACTERS]
    if shown == "\n".join(lines):
        return shown, ""
    left = len(text) - len(shown)
    return shown, f"\n\n*… {left:,} more characters are not shown.*"


def span_attributes(pair: CandidatePair) -> dict[str, Any]:
    """By these MLflow shows a span as a chat."""
    return {
        "mlflow.spanType": "CHAT_MODEL",
        "mlflow.message.format": "openai",
        "mlflow.spanInputs": {"messages": messages(pair)},
        "mlflow.spanOutputs": {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": both_answers(pair)}}
            ]
        },
    }
