"""ASGI middleware for vLLM (`--middleware`): every request but GET /health needs the API key.

vLLM itself asks for its key under /v1, /v2 and two more prefixes alone. What it serves beside them completes prompts
(/invocations), resizes the group (/scale_elastic_ep) and tells what runs (/metrics, /docs).

Lies on the engine's PYTHONPATH under its own name and runs inside of it: standard library only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY = "VLLM_API_KEY"
OPEN = frozenset({"/health"})
"""Paths that answer whoever asks, with GET or HEAD: systemd's and a load balancer's question whether it lives."""
_BODY = b'{"error":"Unauthorized"}'
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"www-authenticate", b"Bearer"),
]


class RequireApiKey:
    """Passes on what carries the key, untouched, and answers 401 to everything else.

    Raises:
        RuntimeError: no key in the environment: an engine that was meant to have one must not serve without.
    """

    def __init__(self, app: App) -> None:
        key = os.environ.get(KEY, "")
        if not key:
            raise RuntimeError(f"{KEY} is empty, and the plan has an API key: not serving without it")
        self._app = app
        self._digest = hashlib.sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket") or self._allowed(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _BODY})
        elif "websocket.http.response" in (scope.get("extensions") or {}):
            await send({"type": "websocket.http.response.start", "status": 401, "headers": _HEADERS})
            await send({"type": "websocket.http.response.body", "body": _BODY})
        else:  # before it is accepted: the server answers the handshake with 403
            await send({"type": "websocket.close", "code": 1008})

    def _allowed(self, scope: Scope) -> bool:
        headers, method = scope.get("headers") or (), scope.get("method")
        if method in ("GET", "HEAD") and scope.get("path") in OPEN and scope["type"] == "http":
            return True
        if method == "OPTIONS" and _is_preflight(headers):
            return True  # a browser's own question, without a key; the CORS middleware inside answers it itself
        given = [value for name, value in headers if name.lower() == b"authorization"]
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        # Digests: the comparison takes as long whatever the lengths are.
        same = hmac.compare_digest(hashlib.sha256(token.strip()).digest(), self._digest)
        return same and scheme.lower() == b"bearer"


def _is_preflight(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return {b"origin", b"access-control-request-method"} <= {name.lower() for name, _ in headers}
