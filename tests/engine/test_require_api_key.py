"""With an API key, every route that the real vLLM names asks for it; what carries it is served, streams too."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request

import pytest

from tests.engine.conftest import KEY, Real

pytestmark = [pytest.mark.sandbox, pytest.mark.engine]

BESIDES = ["/", "/metrics", "/docs", "/redoc", "/openapi.json", "/ping", "/no-such-path"]
"""Paths that the OpenAPI document leaves out."""


def ask(real: Real, path: str, *, key: str = "", method: str = "GET", body: object = None) -> tuple[int, str]:
    """Return status and text of one request."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{real.head}:8000{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def test_no_route_answers_without_the_key(real: Real) -> None:
    status, text = ask(real, "/openapi.json", key=KEY)
    assert status == 200
    routes = [
        (re.sub(r"\{.*?\}", "x", path), method) for path, told in json.loads(text)["paths"].items() for method in told
    ]
    assert {"/invocations", "/scale_elastic_ep", "/tokenize", "/v1/chat/completions"} <= {path for path, _ in routes}
    routes += [(path, "get") for path in BESIDES]
    found = {(path, method): ask(real, path, method=method.upper())[0] for path, method in routes}
    assert {route: code for route, code in found.items() if code != 401} == {("/health", "get"): 200}
    assert {ask(real, path, key=f"{KEY}x")[0] for path in ("/v1/models", "/metrics", "/docs")} == {401}


def test_what_carries_the_key_is_served_streams_too(real: Real) -> None:
    assert "vllm:num_requests_running" in ask(real, "/metrics", key=KEY)[1]
    body = {
        "model": "kimi-k2",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 4,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    status, text = ask(real, "/v1/chat/completions", key=KEY, method="POST", body=body)
    assert status == 200
    # A busy engine puts several tokens into one chunk: only the usage says how many came.
    *chunks, last, done = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert chunks
    assert json.loads(last)["usage"]["completion_tokens"] == 4
    assert done == "[DONE]"


def test_the_guard_still_reads_the_engine(real: Real) -> None:
    assert real.ready()
    assert not real.status().get("metrics_problem")
