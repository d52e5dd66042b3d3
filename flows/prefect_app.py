"""The Prefect server's application as ``flows.servers`` starts it: asked for by its own names only,
and with pages that talk to nobody else."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from prefect.server.api import collections, server

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

ONLY_THIS_SERVER = (
    b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
)


def create_app() -> App:
    """Prefect's application behind the two rules."""
    # Its catalogue of blocks and workers comes with the package; the newer one is on GitHub.
    collections.KNOWN_VIEWS = dict.fromkeys(collections.KNOWN_VIEWS, "")
    return guarded(server.create_app(), _allowed_hosts())


def guarded(app: FastAPI, allowed_hosts: set[str]) -> App:
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
