"""OpenAssistant's conversation trees: several replies to each message, ranked by people.

Two exports (Köpf et al. 2023): trees (``{"message_tree_id": …, "prompt": {"text": …, "replies":
[…]}}``) and messages, a row each, with ``message_id``, ``parent_id``, ``role``, ``rank``. Rank 0 is
the best of the replies to one message.
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.core.formats.dialogues import ROLES
from stages.core.formats.format import Converter, Fields, Format, Rows, as_number, ranked_pairs
from stages.core.schemas import DataKind
from stages.core.sources import Record

MAX_TURNS = 200
TREE = "message_tree_id"
Node = dict[str, Any]
Dialogue = list[dict[str, str]]


# ------------------------------------------------------------------------------- rows of one tree


def _root(fields: Fields) -> Node:
    root = fields.get("prompt")
    if not isinstance(root, dict):
        raise ValueError("prompt is no tree of messages")
    return root


def _turns(root: Node) -> Iterator[tuple[Dialogue, list[Node]]]:
    """Every user's message of a tree, as the dialogue that ends with it, and the replies to it.
    What was deleted, or failed its review, is left out together with what follows on it."""
    stack: list[tuple[Dialogue, Node]] = [([], root)]
    while stack:
        before, node = stack.pop()
        if not isinstance(node.get("text"), str):
            raise ValueError("the tree has a message without text")
        if len(before) >= MAX_TURNS:
            raise ValueError("nested too deeply")
        role = ROLES.get(str(node.get("role", "prompter")).lower())
        if role not in ("user", "assistant"):
            raise ValueError("the tree has a message by another than prompter and assistant")
        dialogue = [*before, {"role": role, "content": node["text"]}]
        replies = node.get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(item, dict) for item in replies):
            raise ValueError("the tree has replies that are no list of messages")
        kept = [
            reply
            for reply in replies
            if not reply.get("deleted") and reply.get("review_result") is not False
        ]
        if role == "user":
            yield dialogue, kept
        stack += [(dialogue, reply) for reply in reversed(kept)]


def _demonstrations(fields: Fields) -> Rows:
    """The best reply to each message; where nobody ranked them, the only one."""
    rows: Rows = []
    for dialogue, replies in _turns(_root(fields)):
        ranked = [reply for reply in replies if as_number(reply.get("rank")) is not None]
        if ranked or len(replies) == 1:
            best = min(ranked, key=lambda reply: reply["rank"]) if ranked else replies[0]
            rows.append(
                {"prompt": dialogue, "completion": best.get("text"), TREE: fields.get(TREE)}
            )
    return rows


def _pairs(fields: Fields) -> Rows:
    """All pairs of ranked replies to each message."""
    rows: Rows = []
    for dialogue, replies in _turns(_root(fields)):
        ranks = [(as_number(reply.get("rank")), reply.get("text")) for reply in replies]
        ranked = [(rank, text) for rank, text in ranks if rank is not None]
        rows += [row | {TREE: fields.get(TREE)} for row in ranked_pairs(dialogue, ranked)]
    return rows


def _prompts(fields: Fields) -> Rows:
    return [{"prompt": dialogue, TREE: fields.get(TREE)} for dialogue, _ in _turns(_root(fields))]


# ------------------------------------------------------------------------- messages, a row each


def gather_trees(records: Iterator[Record]) -> Iterator[Record]:
    """The trees of the messages in ``records``, in the order of their roots, whatever the order of
    the rows. Until all are read the messages lie on the disk, not in memory.

    Records that are no message are passed on with a reason, and so are messages without the one
    that they reply to.
    """
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "messages.sqlite")
        try:
            database.execute("CREATE TABLE messages (tree TEXT, line INTEGER, fields TEXT)")
            for record in records:
                reason = _message_fault(record)
                if reason:
                    yield record._replace(fields=None, reason=reason)
                    continue
                fields = record.fields or {}
                # As JSON, what is no valid Unicode can be stored too.
                tree = json.dumps(fields.get(TREE), default=str)
                row = (tree, record.line, json.dumps(fields, default=str))
                database.execute("INSERT INTO messages VALUES (?, ?, ?)", row)
            database.execute("CREATE INDEX by_tree ON messages (tree, line)")
            order = "SELECT tree FROM messages GROUP BY tree ORDER BY MIN(line)"
            for (tree,) in database.execute(order):
                rows = database.execute(
                    "SELECT line, fields FROM messages WHERE tree = ? ORDER BY line", (tree,)
                )
                yield from _trees([(line, json.loads(text)) for line, text in rows])
        finally:
            database.close()


def _message_fault(record: Record) -> str:
    """Why a record is no message, or ""."""
    if record.fields is None:
        return record.reason
    for name in ("message_id", "text"):
        if not isinstance(record.fields.get(name), str):
            return f"column {name} missing"
    return ""


def _trees(messages: list[tuple[int, Node]]) -> Iterator[Record]:
    """The trees among messages with one ``message_tree_id`` (there should be one)."""
    replies: dict[str, list[tuple[int, Node]]] = {}
    for line, message in messages:
        replies.setdefault(str(message.get("parent_id") or ""), []).append((line, message))
    for line, root in replies.pop("", []):
        waiting = [root]
        while waiting:
            node = waiting.pop()
            children = [child for _, child in replies.pop(node["message_id"], [])]
            node["replies"] = children
            waiting += children
        about = {name: value for name, value in root.items() if name not in ("text", "replies")}
        tree = root.get(TREE) or root["message_id"]
        yield Record(line, {**about, TREE: tree, "prompt": root})
    for orphans in replies.values():
        for line, message in orphans:
            reason = "the message that it replies to is not in the file"
            yield Record(line, None, reason, message["text"])


def _is_message(fields: Fields) -> bool:
    is_role = fields.get("role") in ("prompter", "assistant")
    return is_role and {"message_id", "parent_id", "text"} <= fields.keys()


def _is_tree(fields: Fields) -> bool:
    root = fields.get("prompt")
    return isinstance(root, dict) and "text" in root and isinstance(root.get("replies"), list)


ROWS: dict[DataKind, Converter] = {
    "sft": _demonstrations,
    "preferences": _pairs,
    "prompts": _prompts,
}

FORMATS = (
    Format("OpenAssistant trees", "prompt with replies", _is_tree, ROWS, group=TREE),
    Format(
        "OpenAssistant messages",
        "message_id, parent_id, role, text, rank",
        _is_message,
        ROWS,
        gather_trees,
        TREE,
    ),
)
