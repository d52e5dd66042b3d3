"""The rows of each kind of data, and JSON Lines files of them.

Users' records come in several shapes; ``parse_row`` turns each into the one shape that all later
stages read:

=========== ========================================================================
documents   ``text``, and where given ``id``, ``source``, ``meta``
sft         ``prompt``, ``completion``
preferences ``prompt``, ``chosen``, ``rejected``, and where given ``annotator``,
            ``created_at``, ``margin``, ``source``
prompts     ``prompt``
labelled    ``text``, ``label``
=========== ========================================================================

A prompt is a string (one user message) or a list of messages with ``role`` and ``content`` that
ends with a user's; completion, chosen and rejected are the assistant's reply as a string. Columns
not named here are dropped: what no stage reads needs no cleaning and cannot leak.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    ValidationError,
)
from pydantic.functional_validators import AfterValidator
from pydantic_core import ErrorDetails, PydanticCustomError, from_json, to_json

from stages.core.errors import UserError

DataKind = Literal["documents", "sft", "preferences", "prompts", "labelled"]
DATA_KINDS: tuple[DataKind, ...] = get_args(DataKind)

DIALOGUE_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ ]?")
"""Where a turn begins in Anthropic's HH-RLHF format."""
EMPTY_REPLY = {"role": "assistant", "content": ""}


# ------------------------------------------------------------------------------------- row types


def _check_text(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("text", "is empty")
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        raise PydanticCustomError("text", "is not valid UTF-8")
    return text


def _empty_to_none(value: object) -> object:
    """An empty CSV cell says nothing."""
    return None if value == "" else value


def _label_text(value: object) -> object:
    """A class is named by text, a whole number or a truth value; 1.0 is what a table makes of 1
    where other cells are empty."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int):
        raise PydanticCustomError("text", "is neither text nor a whole number")
    return " ".join(str(value).split())


class _Row(BaseModel):
    """Types are not converted where text is expected: a number as a completion is a mistake."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


Text = Annotated[str, Strict(), Field(coerce_numbers_to_str=False), AfterValidator(_check_text)]
Label = Annotated[str | None, BeforeValidator(_empty_to_none)]
ClassLabel = Annotated[str, BeforeValidator(_label_text), AfterValidator(_check_text)]


def _role(role: object) -> object:
    """OpenAI calls the system role so since its reasoning models."""
    return "system" if role == "developer" else role


def _joined_parts(content: object) -> object:
    """The text of a content that OpenAI writes as a list of parts; any other is left to judge."""
    if not isinstance(content, list) or not content:
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    if len(texts) < len(content) or not all(isinstance(text, str) for text in texts):
        raise PydanticCustomError("text", "has parts that are not text")
    return "\n".join(map(str, texts))


class Message(_Row):
    """One turn of a conversation."""

    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(_role)]
    content: Annotated[Text, BeforeValidator(_joined_parts)]


def _without_empty_system(messages: object) -> object:
    """Many exports begin each dialogue with a system message, said or not."""
    if not isinstance(messages, list) or not messages or not isinstance(messages[0], dict):
        return messages
    role, content = (messages[0].get(name) for name in ("role", "content"))
    is_blank = content is None or (isinstance(content, str) and not content.strip())
    return messages[1:] if _role(role) == "system" and is_blank else messages


def _check_messages(messages: list[Message]) -> list[Message]:
    if not messages:
        raise PydanticCustomError("messages", "is an empty list")
    if any(message.role == "system" for message in messages[1:]):
        raise PydanticCustomError("messages", "has a system message that is not the first")
    return messages


Messages = Annotated[
    list[Message], BeforeValidator(_without_empty_system), AfterValidator(_check_messages)
]
Content = Annotated[
    Annotated[Text, Tag("as string")] | Annotated[Messages, Tag("as messages")],
    Discriminator(lambda value: "as messages" if isinstance(value, list) else "as string"),
]


class Document(_Row):
    """A text to pretrain on."""

    text: Text
    id: Label = None
    source: Label = None
    meta: dict[str, Any] | None = None


class Demonstration(_Row):
    """A prompt and the reply to learn."""

    prompt: Content
    completion: Content


class Conversation(_Row):
    """A demonstration as one list of messages; the last one is the reply to learn."""

    messages: Messages


class Preference(_Row):
    """Two replies to one prompt, the first of them preferred."""

    prompt: Content
    chosen: Content
    rejected: Content
    annotator: Label = None
    created_at: Annotated[datetime | None, BeforeValidator(_empty_to_none)] = None
    margin: Annotated[
        Annotated[float, Field(allow_inf_nan=False)] | None, BeforeValidator(_empty_to_none)
    ] = None
    """How much better the chosen reply is, in the annotators' unit."""
    source: Label = None


class Prompt(_Row):
    """Something to reply to."""

    prompt: Content


class LabelledText(_Row):
    """A text and the class that it belongs to."""

    text: Text
    label: ClassLabel


def columns(kind: DataKind) -> tuple[str, ...]:
    """The columns that are read of a kind of data."""
    models: dict[DataKind, tuple[type[_Row], ...]] = {
        "documents": (Document,),
        "sft": (Demonstration, Conversation),
        "preferences": (Preference,),
        "prompts": (Prompt,),
        "labelled": (LabelledText,),
    }
    return tuple(name for model in models[kind] for name in model.model_fields)


# --------------------------------------------------------------------------------------- parsing


def parse_row(kind: DataKind, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check one record and return it in the shape of its kind (see the module's table).

    Raises:
        ValueError: what is wrong with the record, as a phrase without any of its own text, so that
            equal mistakes can be counted.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        if kind == "documents":
            return Document.model_validate(given).model_dump(mode="json", exclude_none=True)
        if kind == "sft":
            return _sft(given)
        if kind == "preferences":
            return _preference(given)
        if kind == "labelled":
            return LabelledText.model_validate(given).model_dump()
        return {"prompt": _prompt(Prompt.model_validate(given).prompt)}
    except ValidationError as error:
        raise ValueError(_reason(error.errors(include_url=False, include_input=False))) from None


def _sft(fields: dict[str, Any]) -> dict[str, Any]:
    if "messages" in fields:
        messages = Conversation.model_validate(fields).messages
        prompt: str | list[Message] = messages[:-1]
        reply = messages[-1:]
    else:
        row = Demonstration.model_validate(fields)
        prompt, reply = row.prompt, _as_reply(row.completion)
    completion = _reply_text(reply, "completion")
    return {"prompt": _prompt(prompt), "completion": completion}


def _preference(fields: dict[str, Any]) -> dict[str, Any]:
    row = Preference.model_validate(_with_explicit_prompt(fields))
    prompt = _prompt(row.prompt)
    chosen = _reply_text(_as_reply(row.chosen), "chosen")
    rejected = _reply_text(_as_reply(row.rejected), "rejected")
    if chosen.strip() == rejected.strip():
        raise ValueError("chosen and rejected are equal")
    rest = row.model_dump(
        mode="json", exclude_none=True, include={"annotator", "created_at", "margin", "source"}
    )
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **rest}


def _with_explicit_prompt(fields: dict[str, Any]) -> dict[str, Any]:
    """Where chosen and rejected hold whole dialogues, take the prompt out of them: all turns before
    the last, which must be common to both and be followed by the assistant's."""
    chosen, rejected = (
        _whole_dialogue(fields.get(name), "prompt" in fields) for name in ("chosen", "rejected")
    )
    if chosen is None or rejected is None:
        return fields
    for name, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns[-1] == EMPTY_REPLY:
            raise ValueError(f"{name} is empty")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError("chosen and rejected differ before their last turn")
    return fields | {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


def _whole_dialogue(value: object, has_prompt: bool) -> list[Any] | None:
    """The turns of a reply column that holds a whole dialogue, else None."""
    if isinstance(value, str):
        return None if has_prompt else _dialogue(value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return value if not has_prompt or value[0].get("role") != "assistant" else None
    return None


def _dialogue(text: str) -> list[dict[str, str]] | None:
    """The turns of a text in the HH-RLHF format, else None; the last one is empty where the text
    ends with "Assistant:"."""
    before, *pieces = DIALOGUE_TURN.split(text)
    if before or len(pieces) < 4:
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[name], "content": content.strip()}
        for name, content in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _prompt(prompt: str | list[Message]) -> str | list[dict[str, str]]:
    """A prompt that ends with a user's message. A string in the HH-RLHF format becomes messages:
    its "Human:" and "Assistant:" are the format's, not the user's words."""
    if isinstance(prompt, str):
        if not prompt.rstrip().endswith("\n\nAssistant:"):
            return prompt
        turns = _dialogue(prompt)
        if turns is None:
            return prompt
        # What stands after the closing "Assistant:" is to be written yet.
        asked = turns[:-1] if turns[-1] == EMPTY_REPLY else turns
        prompt = Conversation.model_validate({"messages": asked}).messages
    if not prompt or prompt[-1].role != "user":
        raise ValueError("prompt does not end with a user's message")
    if len(prompt) == 1:
        return prompt[0].content
    return [message.model_dump() for message in prompt]


def _as_reply(content: str | list[Message]) -> list[Message]:
    return [Message(role="assistant", content=content)] if isinstance(content, str) else content


def _reply_text(reply: list[Message], name: str) -> str:
    if reply[-1].role != "assistant":
        raise ValueError(f"{name} does not end with an assistant's message")
    if len(reply) > 1:
        raise ValueError(f"{name} has several messages")
    return reply[0].content


def _reason(errors: list[ErrorDetails]) -> str:
    missing = [str(error["loc"][0]) for error in errors if error["type"] == "missing"]
    if missing and len(errors[0]["loc"]) == 1:
        return f"column {' and '.join(missing)} missing"
    error = errors[0]
    # Positions in lists and branches of a union ("as …") would tell equal mistakes apart.
    names = [part for part in error["loc"] if isinstance(part, str) and not part.startswith("as ")]
    name = ".".join(names)
    phrases = {
        "string_type": "is not a string",
        "list_type": "is not a list",
        "dict_type": "is not an object",
        "missing": "is missing",
        "finite_number": "is not a finite number",
        "float_parsing": "is not a number",
        "model_type": "has a turn that is not an object",
        "literal_error": "is none of system, user, assistant",
    }
    if error["type"] in ("text", "messages"):
        return f"{name} {error['msg']}"
    return f"{name} {phrases.get(error['type'], 'has a wrong type')}"


# ----------------------------------------------------------------------------------- normal forms


def normalize(text: str) -> str:
    """The text without differences of case and white space, for comparing."""
    return " ".join(text.casefold().split())


def prompt_key(kind: DataKind, row: Mapping[str, Any]) -> str:
    """What keeps records together in one split: the normalised prompt, or text."""
    if kind in ("documents", "labelled"):
        return normalize(row["text"])
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return normalize(prompt)
    return normalize("\n".join(message["content"] for message in prompt))


# ------------------------------------------------------------------------------------ JSON Lines


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that ``write_jsonl`` or the stages collect and clean wrote.

    Raises:
        UserError: a line is not an object; such a file was damaged after it was written.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = from_json(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: damaged row; make the file again with --fresh")
            yield row


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one row a line, by temporary file and rename, and return their number."""
    part = path.with_name(f".{path.name}.part")
    count = 0
    with part.open("wb") as file:
        for row in rows:
            file.write(encode_row(row))
            count += 1
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return count


def encode_row(row: Mapping[str, Any]) -> bytes:
    """One row as a line of UTF-8."""
    return to_json(row, inf_nan_mode="null") + b"\n"
