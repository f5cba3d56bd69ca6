"""Every request but GET /health needs the key; what carries it passes untouched, streams and websockets too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.on_host.require_api_key import KEY, OPEN, RequireApiKey

SECRET = "sk-Sésame"
BEARER = (b"authorization", f"Bearer {SECRET}".encode())


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a stream of three parts, or echo a websocket's first message."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        return
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(3):
        body = (await receive()).get("body", b"") + str(number).encode()
        await send({"type": "http.response.body", "body": body, "more_body": number < 2})


def served(**scope: Any) -> list[dict[str, Any]]:
    """Return what one connection is sent."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x", "text": "hello"}

    async def send(message: Any) -> None:
        sent.append(message)

    given_scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [], **scope}
    asyncio.run(RequireApiKey(application)(given_scope, receive, send))
    return sent


def status(**scope: Any) -> int:
    return int(served(**scope)[0]["status"])


PATHS = ["/v1/models", "/invocations", "/scale_elastic_ep", "/tokenize", "/metrics", "/docs", "/openapi.json", "/ping"]


@pytest.mark.parametrize("path", [*PATHS, "/", "/health/", "/Health", "//health", "/health/x", "/v1/../health", ""])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "get"])
def test_no_path_answers_without_the_key(path: str, method: str) -> None:
    assert status(path=path, method=method) == 401
    assert status(path=path, method=method, headers=[BEARER]) == 200


def test_health_answers_whoever_asks_and_takes_no_orders() -> None:
    assert {"/health"} == OPEN
    assert status(path="/health") == status(path="/health", method="HEAD") == 200
    assert status(path="/health", method="POST") == 401


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"")],
        [(b"authorization", f"Basic {SECRET}".encode())],
        [(b"authorization", SECRET.encode())],
        [(b"authorization", f"Bearer {SECRET}x".encode())],
        [(b"authorization", f"Bearer {SECRET[:-1]}".encode())],
        [(b"authorization", f"Bearer {SECRET.upper()}".encode())],
        [(b"x-api-key", SECRET.encode())],
        [BEARER, (b"authorization", b"Bearer other")],
        [(b"authorization", b"\xff\xfe Bearer")],
    ],
)
def test_what_resembles_the_key_is_not_the_key(headers: list[tuple[bytes, bytes]]) -> None:
    assert status(headers=headers) == 401


@given(st.binary(max_size=60))
def test_no_other_token_passes(token: bytes) -> None:
    if token.strip() != SECRET.encode():
        assert status(headers=[(b"authorization", b"Bearer " + token)]) == 401


def test_a_browser_s_question_passes_and_no_other_options() -> None:
    asks = [(b"Origin", b"https://app.example"), (b"Access-Control-Request-Method", b"POST")]
    assert status(method="OPTIONS", headers=asks) == 200
    assert status(method="OPTIONS", headers=asks[:1]) == 401
    assert status(method="POST", headers=asks) == 401


def test_a_stream_passes_part_by_part() -> None:
    parts = served(headers=[BEARER])
    assert [part.get("body") for part in parts] == [None, b"x0", b"x1", b"x2"]


def test_websockets_need_the_key_before_they_are_accepted() -> None:
    socket: dict[str, Any] = {"type": "websocket", "path": "/v1/realtime"}
    assert [message["type"] for message in served(**socket, headers=[BEARER])] == ["websocket.accept", "websocket.send"]
    assert served(**socket) == [{"type": "websocket.close", "code": 1008}]
    refused = served(**socket, extensions={"websocket.http.response": {}})
    assert refused[0]["type"] == "websocket.http.response.start"
    assert refused[0]["status"] == 401
    assert served(**socket | {"path": "/health"}) == [{"type": "websocket.close", "code": 1008}]


def test_the_server_s_own_events_pass() -> None:
    assert served(type="lifespan") == [{"type": "lifespan.startup.complete"}]


def test_an_engine_that_was_to_have_a_key_does_not_serve_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", None):
        monkeypatch.setenv(KEY, value) if value is not None else monkeypatch.delenv(KEY)
        with pytest.raises(RuntimeError, match="not serving without it"):
            RequireApiKey(application)
