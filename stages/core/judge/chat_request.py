"""One question to an endpoint that speaks OpenAI's chat-completions protocol."""

import asyncio
import ipaddress
import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx

from stages.core.config import JudgeConfig
from stages.core.errors import UserError, without_passwords

KEY_VARIABLE = "RLHF_JUDGE_API_KEY"
OPTIONAL: dict[str, Any] = {"temperature": 0, "max_tokens": 2048}
"""Some models refuse one or the other; they are then asked without."""
CONNECT_SECONDS = 10.0
MAX_WAIT_SECONDS = 60.0
"""Longest wait that the endpoint may ask for by Retry-After."""
AGAIN = frozenset((408, 409, 425, 429, *range(500, 600)))
HOPELESS = {
    401: "it refuses the key",
    402: "it asks for money",
    404: "it knows no such address or model",
}
"""Statuses that every further question would meet too."""
SHOWN_CHARACTERS = 200

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    """What the model wrote, and what it cost."""

    text: str
    input_tokens: int | None
    """As the endpoint counts them; none where it does not say."""
    output_tokens: int | None


class AgainError(Exception):
    """The try failed, and the next one may not."""

    def __init__(self, reason: str, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        """What the endpoint asks for; none where it does not."""


class RefusedError(Exception):
    """The endpoint is there, but does not take this question."""


class HopelessError(Exception):
    """The endpoint will take no question."""


def check_endpoint(config: JudgeConfig) -> None:
    """See that the settings can work, before anything is asked.

    Raises:
        UserError: no address, no model, or a key that cannot be one.
    """
    try:
        httpx.URL(config.url)
        url = urlsplit(config.url)
        is_address = url.scheme in ("http", "https") and bool(url.hostname)
    except (httpx.InvalidURL, ValueError):
        is_address = False
    if not is_address:
        raise UserError(
            f"judge.url = {without_passwords(config.url)!r}: give the endpoint's address, "
            "such as http://localhost:8000/v1"
        )
    if not config.model.strip():
        raise UserError("judge.model: give the model's name at the endpoint")
    # The errors of the HTTP library would show such a key.
    if not (_key().isascii() and _key().isprintable()):
        raise UserError(f"{KEY_VARIABLE}: it holds characters that no key has; set it again")


def open_client(config: JudgeConfig) -> httpx.AsyncClient:
    """A client with the key of the environment, where there is one."""
    headers = {"Content-Type": "application/json"}
    if _key():
        headers["Authorization"] = f"Bearer {_key()}"
    return httpx.AsyncClient(
        headers=headers,
        timeout=httpx.Timeout(
            config.timeout_seconds, connect=min(config.timeout_seconds, CONNECT_SECONDS)
        ),
        limits=httpx.Limits(max_connections=config.num_parallel),
        trust_env=not _is_loopback(config.url),  # no proxy to a server of one's own
    )


def address(config: JudgeConfig) -> str:
    """Where questions go."""
    url = urlsplit(config.url)
    path = url.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return urlunsplit(url._replace(path=path))


async def request(
    client: httpx.AsyncClient, config: JudgeConfig, messages: Messages, optional: dict[str, Any]
) -> Answer:
    """The model's answer, by one request; by a second one without the ``optional`` settings where
    the endpoint refuses the first.

    Args:
        optional: emptied where the endpoint takes the question without them only.

    Raises:
        AgainError: no answer, or a status that says to come back later.
        RefusedError: this question is refused.
        HopelessError: every question will be.
    """
    response = await _post(client, config, {**optional, "messages": messages})
    if response.status_code in (400, 422) and optional:
        plain = await _post(client, config, {"messages": messages})
        if plain.is_success:
            optional.clear()
            response = plain
    status = response.status_code
    if status in HOPELESS:
        raise HopelessError(f"{HOPELESS[status]} ({_shown(response)})")
    if status in AGAIN:
        raise AgainError(f"it answers {_shown(response)}", _retry_after(response))
    if status >= 400:
        raise RefusedError(f"it answers {_shown(response)}")
    answer = _parse(response.content)
    if answer is None:
        raise AgainError(f"its answer is no chat completion ({_shown(response)})")
    return answer


async def _post(
    client: httpx.AsyncClient, config: JudgeConfig, body: dict[str, Any]
) -> httpx.Response:
    content = json.dumps({"model": config.model, **body}).encode()
    try:
        # httpx limits each wait for data; a server that drips would never meet that limit.
        async with asyncio.timeout(config.timeout_seconds):
            return await client.post(address(config), content=content)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise AgainError(f"it does not answer within {config.timeout_seconds:g} s") from error
    except httpx.HTTPError as error:
        raise AgainError(_one_line(f"{type(error).__name__}: {error}")) from error


def _parse(content: bytes) -> Answer | None:
    try:
        body = json.loads(content)
        text = body["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not isinstance(text, str | None):
        return None
    usage = body.get("usage")
    counts = [
        usage.get(name) if isinstance(usage, dict) else None
        for name in ("prompt_tokens", "completion_tokens")
    ]
    known = [count if isinstance(count, int) and count >= 0 else None for count in counts]
    return Answer(text or "", known[0], known[1])


def _retry_after(response: httpx.Response) -> float | None:
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:  # absent, or a date
        return None
    return min(max(0.0, seconds), MAX_WAIT_SECONDS)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key() -> str:
    return os.environ.get(KEY_VARIABLE, "").strip()


def _shown(response: httpx.Response) -> str:
    return _one_line(f"HTTP {response.status_code}: {response.text}")


def _one_line(text: str) -> str:
    """Without the key, which some endpoints repeat in their refusals."""
    if _key():
        text = text.replace(_key(), "…")
    text = without_passwords(" ".join(text.split()))
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
