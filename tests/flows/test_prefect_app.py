import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from prefect.server.api import collections

from flows import prefect_app


def _get(hosts: set[str], host: str) -> httpx.Response:
    app = FastAPI()
    app.get("/")(lambda: "page")

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(prefect_app.guarded(app, hosts))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/", headers={"Host": host})

    return asyncio.run(get())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:4200", 200),
        ("localhost", 200),
        ("[::1]:4200", 200),
        ("evil.example:4200", 403),
        ("127.0.0.1.evil.example", 403),
        ("", 403),
    ],
)
def test_only_requests_to_own_names_are_answered(host: str, status: int) -> None:
    assert _get({"127.0.0.1", "localhost", "::1"}, host).status_code == status


def test_any_name_is_answered_where_the_user_says_so() -> None:
    assert _get({"*"}, "proxy.example").status_code == 200


def test_pages_may_talk_to_this_server_only() -> None:
    policy = _get({"x"}, "x").headers["content-security-policy"]
    assert policy.startswith("default-src 'self' ")
    assert "http" not in policy


def test_a_foreign_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def connect() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "headers": [(b"host", b"evil.example")]}
        await prefect_app.guarded(FastAPI(), {"localhost"})(scope, None, send)

    asyncio.run(connect())
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(("refusals", "status"), [(0, 200), (2, 200), (3, 503)])
def test_a_request_is_made_again_while_the_database_is_locked(
    refusals: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_app, "LOCKED_WAITS_SECONDS", (0.0, 0.0))
    app = FastAPI()
    bodies: list[bytes] = []

    @app.post("/")
    async def resume(request: Request) -> Response:
        bodies.append(await request.body())
        if len(bodies) <= refusals:
            raise RuntimeError("database is locked")
        return Response("done")

    @app.exception_handler(Exception)
    async def refuse(request: Request, error: Exception) -> Response:
        return Response("locked", 503)

    async def post() -> httpx.Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"decision: "
            yield b"promote"

        # The framework raises the error again behind its answer; a server only logs that.
        transport = httpx.ASGITransport(prefect_app.patient(app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.post("/", content=parts())

    answer = asyncio.run(post())
    assert (answer.status_code, answer.text) == (status, "done" if status == 200 else "locked")
    assert bodies == [b"decision: promote"] * (min(refusals, 2) + 1)


def test_other_errors_are_answered_at_once() -> None:
    app = FastAPI()
    app.get("/")(lambda: Response(status_code=500))

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(prefect_app.patient(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/")

    assert asyncio.run(get()).status_code == 500


def test_the_hosts_are_those_of_the_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    origins = "http://127.0.0.1:4200, https://runs.example"
    monkeypatch.setenv("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", origins)
    assert prefect_app._allowed_hosts() == {"127.0.0.1", "runs.example"}


def test_the_catalogue_is_read_from_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", "http://127.0.0.1:4200")
    monkeypatch.setattr(collections, "KNOWN_VIEWS", dict(collections.KNOWN_VIEWS))
    monkeypatch.setattr(prefect_app.server, "create_app", FastAPI)
    prefect_app.create_app()
    assert set(collections.KNOWN_VIEWS.values()) == {""}
    collections.GLOBAL_COLLECTIONS_VIEW_CACHE.clear()
    view = asyncio.run(collections.get_collection_view("aggregate-worker-metadata"))
    assert "process" in view["prefect"]
