"""Formats that write a dialogue as a list of turns, or as one marked text.

ShareGPT: ``{"conversations": [{"from": "human", "value": …}, …]}``; TRL and OpenAI:
``{"messages": [{"role": "user", "content": …}, …]}``; ChatML: ``<|im_start|>user`` … in one text.
"""

import re
from typing import Any

from stages.core.formats.format import Fields, Format, Rows, of_pairs
from stages.core.schemas import DIALOGUE_TURN

ROLES = {
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "model": "assistant", "bing": "assistant", "bard": "assistant", "claude": "assistant",
    "system": "system", "developer": "system",
}  # fmt: skip
"""What others call the three who speak."""

TOOLS = ("tool", "tools", "function", "function_call", "observation", "ipython")
"""What others call a tool's answer, or a call of it."""

LISTS = ("messages", "conversations", "conversation", "dialog", "dialogue")
CHATML_TURN = re.compile(r"<\|im_start\|>[ ]?(\w+)\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)


def read_turns(turns: object) -> list[dict[str, str]]:
    """Turns as messages with our roles.

    Raises:
        ValueError: one of them is no text by user, assistant or system.
    """
    if not isinstance(turns, list) or not turns:
        raise ValueError("the dialogue is no list of turns")
    return [_read_turn(turn) for turn in turns]


def _read_turn(turn: object) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise ValueError("the dialogue has a turn that is not an object")
    name = turn.get("from") or turn.get("role")
    if turn.get("tool_calls") or turn.get("function_call") or name in TOOLS:
        raise ValueError("the dialogue calls a tool, which no stage trains on")
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise ValueError(
            "the dialogue has a turn by another than user (human), assistant (gpt) and system"
        )
    content = _text(turn.get("value") if turn.get("value") is not None else turn.get("content"))
    if content is None and role == "system" and not (turn.get("value") or turn.get("content")):
        content = ""  # many exports have the turn even where nothing was said
    if content is None:
        raise ValueError("the dialogue has a turn that is not text")
    return {"role": role, "content": content}


def _text(content: object) -> str | None:
    """The text of a turn, which OpenAI may write as a list of parts; None: another medium."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    if len(parts) < len(content):
        return None
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(content) else None


def until_last_user(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """The dialogue without the replies at its end."""
    kept = list(messages)
    while kept and kept[-1]["role"] != "user":
        kept.pop()
    return kept


# ---------------------------------------------------------------------------------- demonstrations


def _list_column(fields: Fields, key: str) -> str:
    """The column that holds turns with ``key``, or ""."""
    for name in LISTS:
        turns = fields.get(name)
        if isinstance(turns, list) and turns and isinstance(turns[0], dict) and key in turns[0]:
            return name
    return ""


def _dialogue(fields: Fields) -> list[dict[str, str]]:
    """The turns of a record in one of the list formats, after the ``system`` column where it has
    one."""
    name = next((name for name in LISTS if fields.get(name) is not None), "")
    if not name:
        raise ValueError(f"column {LISTS[0]} missing")
    messages = read_turns(fields[name])
    system = fields.get("system")
    if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _is_unlearned(turn: object) -> bool:
    """OpenAI's fine-tuning leaves out replies of weight 0."""
    return isinstance(turn, dict) and turn.get("weight") == 0


def _demonstration(fields: Fields) -> Rows:
    messages = _dialogue(fields)
    turns = next(fields[name] for name in LISTS if fields.get(name) is not None)
    if _is_unlearned(turns[-1]):
        raise ValueError("the last message has weight 0: it is not to be learned")
    return [{"messages": messages}]


def _prompt(fields: Fields) -> Rows:
    return [{"prompt": until_last_user(_dialogue(fields))}]


def _chatml(fields: Fields) -> list[dict[str, str]]:
    text = fields.get("text")
    turns = CHATML_TURN.findall(text) if isinstance(text, str) else []
    if not turns:
        raise ValueError("the text has no <|im_start|>")
    messages = read_turns([{"role": role, "content": content.strip()} for role, content in turns])
    # What generation begins with, not a turn.
    if messages[-1] == {"role": "assistant", "content": ""}:
        messages.pop()
    return messages


def _is_chatml(fields: Fields) -> bool:
    return isinstance(fields.get("text"), str) and "<|im_start|>" in fields["text"]


# ------------------------------------------------------------------------------------------- pairs


def _sharegpt_pair(fields: Fields) -> Rows:
    replies: dict[str, Any] = {}
    for name in ("chosen", "rejected"):
        if fields.get(name) is None:
            raise ValueError(f"column {name} missing")
        reply = fields[name]
        replies[name] = read_turns(reply if isinstance(reply, list) else [reply])
    return [{"prompt": _dialogue(fields), **replies}]


def _is_sharegpt_pair(fields: Fields) -> bool:
    chosen, rejected = fields.get("chosen"), fields.get("rejected")
    has_replies = isinstance(chosen, dict) and isinstance(rejected, dict)
    return has_replies and bool(_list_column(fields, "from") or _list_column(fields, "role"))


def _openai_pair(fields: Fields) -> Rows:
    if not isinstance(fields.get("input"), dict):
        raise ValueError("column input missing")
    return [
        {
            "prompt": read_turns(fields["input"].get("messages")),
            "chosen": read_turns(fields.get("preferred_output")),
            "rejected": read_turns(fields.get("non_preferred_output")),
        }
    ]


def _is_hh(fields: Fields) -> bool:
    if fields.get("prompt") is not None:
        return False
    pair = (fields.get("chosen"), fields.get("rejected"))
    return all(isinstance(text, str) and DIALOGUE_TURN.match(text) for text in pair)


def _hh_pair(fields: Fields) -> Rows:
    return [{name: fields.get(name) for name in ("chosen", "rejected")}]


FORMATS = (
    Format(
        "OpenAI preferences",
        "input, preferred_output, non_preferred_output",
        lambda fields: isinstance(fields.get("input"), dict) and "preferred_output" in fields,
        of_pairs(_openai_pair),
    ),
    Format(
        "ShareGPT pairs",
        "conversations, chosen, rejected",
        _is_sharegpt_pair,
        of_pairs(_sharegpt_pair),
    ),
    Format("HH-RLHF dialogues", "chosen, rejected", _is_hh, of_pairs(_hh_pair)),
    Format(
        "ShareGPT",
        "conversations: from, value",
        lambda fields: bool(_list_column(fields, "from")),
        {"sft": _demonstration, "prompts": _prompt},
    ),
    Format(
        "messages",
        "role, content",
        lambda fields: bool(_list_column(fields, "role")),
        {"sft": _demonstration, "prompts": _prompt},
    ),
    Format(
        "ChatML text",
        "text with <|im_start|>",
        _is_chatml,
        {
            "sft": lambda fields: [{"messages": _chatml(fields)}],
            "prompts": lambda fields: [{"prompt": until_last_user(_chatml(fields))}],
        },
    ),
)
