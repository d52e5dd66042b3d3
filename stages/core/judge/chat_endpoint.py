"""Many questions to a chat endpoint: several at a time, again where that may help, none twice.

Answers are kept in a file, so that a run that is continued pays for none of them again. An endpoint
that is down costs a few tries and not one for each question.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx

from stages.core.config import JudgeConfig
from stages.core.judge.chat_request import (
    OPTIONAL,
    AgainError,
    Answer,
    HopelessError,
    Messages,
    RefusedError,
    address,
    check_endpoint,
    open_client,
    request,
)

TRIES = 3
BACKOFF_SECONDS = 1.0
"""Before the second try; twice that before the third."""
USELESS_IN_A_ROW = 20
"""So many refusals and useless answers one after the other, and no more are paid for."""


@dataclass(frozen=True)
class NoAnswer:
    """A question without an answer: why, in one line."""

    reason: str


@dataclass(frozen=True)
class Asked:
    """What came of the questions."""

    answers: list[Answer | NoAnswer]
    """In the questions' order."""
    distinct: list[Answer | NoAnswer]
    """The same for the questions that differ; the others share an answer, which is paid once."""
    num_kept: int
    """Of these, those whose answer stood in the file."""
    stopped: str
    """Why not all were asked; empty where they were."""


@dataclass
class _Endpoint:
    """What the questions under way share."""

    client: httpx.AsyncClient
    config: JudgeConfig
    kept: TextIO
    is_usable: Callable[[str], bool]
    optional: dict[str, Any] = field(default_factory=lambda: dict(OPTIONAL))
    unanswered: int = 0
    """Questions in a row that failed in every try."""
    useless: int = 0
    """Questions in a row that were refused or whose answer was of no use."""
    stopped: str = ""


def ask_all(
    config: JudgeConfig,
    questions: Sequence[Messages],
    *,
    file: Path,
    is_usable: Callable[[str], bool],
    on_answer: Callable[[int, int], None],
) -> Asked:
    """Ask every question, each distinct one once.

    Args:
        file: where answers are kept, JSON lines; made where it does not exist. What stands there is
            not asked again.
        is_usable: whether an answer is of any use.
        on_answer: called with the distinct questions done and their number, after each.

    Raises:
        UserError: see ``check_endpoint``.
        OSError: the file cannot be read or written.
    """
    check_endpoint(config)
    keys = [_key(config, messages) for messages in questions]
    distinct = dict(zip(keys, questions, strict=True))
    kept = {key: answer for key, answer in _read(file).items() if key in distinct}
    answers: dict[str, Answer | NoAnswer] = dict(kept)
    if kept:
        on_answer(len(kept), len(distinct))

    def done(key: str, answer: Answer | NoAnswer) -> None:
        answers[key] = answer
        on_answer(len(answers), len(distinct))

    missing = {key: messages for key, messages in distinct.items() if key not in kept}
    stopped = asyncio.run(_ask(config, missing, file, is_usable, done)) if missing else ""
    return Asked([answers[key] for key in keys], list(answers.values()), len(kept), stopped)


async def _ask(
    config: JudgeConfig,
    questions: dict[str, Messages],
    file: Path,
    is_usable: Callable[[str], bool],
    done: Callable[[str, Answer | NoAnswer], None],
) -> str:
    """Why it stopped early; empty where it did not."""
    file.parent.mkdir(parents=True, exist_ok=True)
    at_once = asyncio.Semaphore(config.num_parallel)
    async with open_client(config) as client:
        with file.open("a", encoding="utf-8") as kept:
            if file.stat().st_size:
                kept.write("\n")  # the last line may be of a process that was killed
            endpoint = _Endpoint(client, config, kept, is_usable)

            async def ask(key: str, messages: Messages) -> None:
                async with at_once:
                    done(key, await _ask_one(endpoint, key, messages))

            tasks = [asyncio.create_task(ask(*question)) for question in questions.items()]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
    return endpoint.stopped


async def _ask_one(endpoint: _Endpoint, key: str, messages: Messages) -> Answer | NoAnswer:
    reason = ""
    for number in range(TRIES):
        if endpoint.stopped:
            return NoAnswer(reason or f"not asked: {endpoint.stopped}")
        try:
            answer = await request(endpoint.client, endpoint.config, messages, endpoint.optional)
        except AgainError as error:
            reason = str(error)
            if number + 1 < TRIES:
                wait = BACKOFF_SECONDS * 2**number
                await asyncio.sleep(wait if error.wait_seconds is None else error.wait_seconds)
            continue
        except RefusedError as error:
            _count_useless(endpoint, str(error))
            return NoAnswer(str(error))
        except HopelessError as error:
            endpoint.stopped = endpoint.stopped or str(error)
            return NoAnswer(str(error))
        _keep(endpoint.kept, key, answer)
        if endpoint.is_usable(answer.text):
            endpoint.unanswered = endpoint.useless = 0
        else:
            _count_useless(endpoint, "its answers are of no use")
        return answer
    endpoint.unanswered += 1
    # As many as are asked at a time: each of them has then failed for good once.
    if endpoint.unanswered >= max(2, endpoint.config.num_parallel):
        endpoint.stopped = endpoint.stopped or reason
    return NoAnswer(reason)


def _count_useless(endpoint: _Endpoint, reason: str) -> None:
    endpoint.unanswered = 0
    endpoint.useless += 1
    if endpoint.useless >= USELESS_IN_A_ROW:
        endpoint.stopped = endpoint.stopped or f"{USELESS_IN_A_ROW} times in a row, {reason}"


def _key(config: JudgeConfig, messages: Messages) -> str:
    content = json.dumps([address(config), config.model, OPTIONAL, messages], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _keep(kept: TextIO, key: str, answer: Answer) -> None:
    row = {
        "key": key,
        "text": answer.text,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
    }
    kept.write(json.dumps(row) + "\n")
    kept.flush()


def _read(file: Path) -> dict[str, Answer]:
    """Answers of earlier calls by the key of their request; damaged lines are passed over."""
    answers = {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    for line in lines:
        try:
            row = json.loads(line)
            answers[row["key"]] = Answer(row["text"], row["input_tokens"], row["output_tokens"])
        except (ValueError, LookupError, TypeError):
            continue
    return answers
