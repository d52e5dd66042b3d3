"""A pair as MLflow shows it: the conversation, then both answers, letter for letter.

The page Review shows two previews of a trace, what went in and what came out, as Markdown; the
whole trace opens beside it. A reply is text by somebody who may want to look like the other answer,
so nothing in it means anything: what Markdown knows is escaped, and only our own headings are
headings.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from stages.core.feedback.pairs import CandidatePair


@dataclass(frozen=True)
class Room:
    """How much of a text is shown."""

    characters: int
    """Of Markdown, in which some characters are two."""
    lines: int
    """Of the text."""
    note: str
    """Said where there is more."""


_REST = "\n\n*… “View full trace” shows the rest.*"
SHORT = Room(1000, 40, _REST)
"""What every database takes for a preview."""
LONG_QUESTION = Room(3000, 16, _REST)
"""Where the database takes more: SQLite does, PostgreSQL does not. Answer B stays within reach."""
LONG_ANSWERS = Room(16_000, 80, _REST)
WHOLE_TRACE = Room(100_000, 1000, "\n\n*… all of it is among the attributes.*")
EMPTY = "*(empty)*"
SPECIAL = re.compile(
    r"[\\`*\[\]<~$&]|(?<!\w)_|_(?!\w)|(?<=http):|(?<=https):|(?<=www)\.", re.IGNORECASE
)
"""What means something to Markdown anywhere. An address would take the escapes behind it along."""
STARTS = re.compile(r"^(\s*)(\d*)([#+\-=>|:.)])")
"""What means something at the beginning of a line: headings, lists, quotes, tables, rules."""
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Characters that show nothing, or turn around what follows."""
ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}


def question(pair: CandidatePair, room: Room) -> str:
    """The prompt in Markdown. Of a conversation that is too long the last turn is kept first."""
    turns = _turns(pair)
    if len(turns) == 1:
        return shown(turns[0]["content"], room)
    said: list[str] = []
    left = room.characters
    for turn in reversed(turns):
        role = f"**{escaped(ROLES.get(turn['role'], turn['role']))}:** "
        left -= len(role) + len("\n\n")
        if left < 2 * len(room.note):
            break
        said.insert(0, role + shown(turn["content"], replace(room, characters=left)))
        left -= len(said[0]) - len(role)
    return "\n\n".join(said)


def has_turns(pair: CandidatePair) -> bool:
    """Whether the prompt is a conversation, of which MLflow's own preview is the last turn."""
    return len(_turns(pair)) > 1


def answers(pair: CandidatePair, room: Room) -> str:
    """Both answers in Markdown, with what one does not need of the room left to the other."""
    head, between = "### Answer A\n\n", "\n\n---\n\n### Answer B\n\n"
    left = room.characters - len(head) - len(between)
    alone = [
        len(shown(reply, replace(room, characters=left))) for reply in (pair.reply_a, pair.reply_b)
    ]
    reply_a = shown(pair.reply_a, replace(room, characters=max(left // 2, left - alone[1])))
    reply_b = shown(pair.reply_b, replace(room, characters=left - len(reply_a)))
    return f"{head}{reply_a}{between}{reply_b}"


def shown(text: str, room: Room) -> str:
    """Markdown that shows ``text``, or as much of its beginning as there is room for and a note."""
    first = "\n".join(text.split("\n", room.lines)[: room.lines])
    whole = escaped(first)
    if first == text and len(whole) <= room.characters:
        return whole or EMPTY
    limit = room.characters - len(room.note)
    low, high = 0, min(len(first), limit)
    while low < high:  # the longest beginning that fits: escapes take room too
        middle = (low + high + 1) // 2
        if len(escaped(first[:middle])) <= limit:
            low = middle
        else:
            high = middle - 1
    return escaped(first[:low]) + room.note


def escaped(text: str) -> str:
    """Markdown that shows ``text`` as it is: its lines, blank lines and indents too."""
    lines = [_escaped_line(line) for line in text.expandtabs(4).replace("\r\n", "\n").split("\n")]
    paragraphs = re.split(r"\n{2,}", "\n".join(lines).strip("\n"))
    return "\n\n".join(paragraph.replace("\n", "\\\n") for paragraph in paragraphs)


def span_attributes(pair: CandidatePair) -> dict[str, Any]:
    """By these MLflow shows a span as a chat; what it does not show whole is added as it is."""
    messages = [
        {"role": turn["role"], "content": shown(turn["content"], WHOLE_TRACE)}
        for turn in _turns(pair)
    ]
    reply = {"role": "assistant", "content": answers(pair, WHOLE_TRACE)}
    attributes: dict[str, Any] = {
        "mlflow.spanType": "CHAT_MODEL",
        "mlflow.message.format": "openai",
        "mlflow.spanInputs": {"messages": messages},
        "mlflow.spanOutputs": {"choices": [{"index": 0, "message": reply}]},
    }
    if any(row["content"].endswith(WHOLE_TRACE.note) for row in messages):
        attributes["prompt"] = "\n\n".join(escaped(turn["content"]) for turn in _turns(pair))
    if WHOLE_TRACE.note in reply["content"]:
        # The page reads Markdown there, too.
        attributes |= {"answer A": escaped(pair.reply_a), "answer B": escaped(pair.reply_b)}
    return attributes


# ------------------------------------------------------------------------------------ helpers


def _turns(pair: CandidatePair) -> list[dict[str, str]]:
    if isinstance(pair.prompt, str):
        return [{"role": "user", "content": pair.prompt}]
    return pair.prompt


def _escaped_line(line: str) -> str:
    line = HIDDEN.sub(lambda found: f"⟨{_name(found[0])}⟩", line.rstrip())
    line = SPECIAL.sub(lambda found: "\\" + found[0], line)
    line = STARTS.sub(lambda found: f"{found[1]}{found[2]}\\{found[3]}", line)
    indent = len(line) - len(line.lstrip(" "))
    # Four spaces would be a block of code, and several are shown as one.
    return "\u00a0" * indent + line[indent:].replace("  ", "\u00a0 ")


def _name(character: str) -> str:
    return unicodedata.name(character, f"U+{ord(character):04X}")
