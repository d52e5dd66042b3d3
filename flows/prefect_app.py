"""The Prefect server's application as ``flows.servers`` starts it: asked for by its own names only,
with pages that talk to nobody else, and patient with a database that another request writes to."""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import status
from prefect.server.api import collections, server

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

ONLY_THIS_SERVER = (
    b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
)
LOCKED_WAITS_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)


def create_app() -> App:
    """Prefect's application behind the rules of this module."""
    # Its catalogue of blocks and workers comes with the package; the newer one is on GitHub.
    collections.KNOWN_VIEWS = dict.fromkeys(collections.KNOWN_VIEWS, "")
    return guarded(patient(server.create_app()), _allowed_hosts())


def patient(app: App) -> App:
    """``app`` asked again where it answers 503: SQLite refused to let a transaction that had read
    write, because another one wrote meanwhile. Nothing of the request was done.

    Prefect's own client asks again by itself; its pages do not, and a person's click is lost.
    """

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        body = await _whole_body(receive)
        for seconds in LOCKED_WAITS_SECONDS:
            if await _answered(app, scope, body, receive, send):
                return None
            await asyncio.sleep(seconds)
        return await app(scope, _replayed(body, receive), send)

    return answer


async def _whole_body(receive: Receive) -> list[Message]:
    """The messages of a request up to the end of its body."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


def _replayed(body: list[Message], receive: Receive) -> Receive:
    left = list(body)

    async def receive_again() -> Message:
        return left.pop(0) if left else await receive()

    return receive_again


async def _answered(
    app: App, scope: Message, body: list[Message], receive: Receive, send: Send
) -> bool:
    """Whether ``app`` had another answer than 503, which is not sent."""
    locked = False

    async def send_others(message: Message) -> None:
        nonlocal locked
        if message["type"] == "http.response.start":
            locked = message["status"] == status.HTTP_503_SERVICE_UNAVAILABLE
        if not locked:
            await send(message)

    try:
        await app(dict(scope), _replayed(body, receive), send_others)
    except Exception:  # which the framework raises again behind its answer
        if not locked:
            raise
    return not locked


def guarded(app: App, allowed_hosts: set[str]) -> App:
    """``app`` for requests to the allowed hosts; a page's scripts reach this server only.

    Without the first, a page of another site could pass for one of ours by a changed DNS entry.
    """

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await app(scope, receive, send)
        headers = dict(scope["headers"])
        host = urlsplit(f"//{headers.get(b'host', b'').decode('latin-1')}").hostname or ""
        if "*" not in allowed_hosts and host not in allowed_hosts:
            return await _refuse(scope, send)

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", ONLY_THIS_SERVER)
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        return await app(scope, receive, send_with_policy)

    return answer


def _allowed_hosts() -> set[str]:
    """The hosts of the origins whose pages may call the API."""
    origins = os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    return {"*" if item == "*" else urlsplit(item.strip()).hostname or "" for item in origins}


async def _refuse(scope: Message, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    plain = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 403, "headers": plain})
    await send({"type": "http.response.body", "body": b"This server has another name."})
