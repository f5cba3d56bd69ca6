"""With a key, no path of the API but /health answers a request without it, and the guard goes on reading the engine."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests import guard_answers
from tests.deploys.conftest import GROUP, GuardedTestbed

pytestmark = pytest.mark.sandbox

KEY = "sk-0123456789abcdef"


def ask(testbed: GuardedTestbed, path: str, key: str = "", body: object = None) -> int:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{testbed.box.hosts[0].address}:8000{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_every_path_but_health_asks_for_the_key(guarded: GuardedTestbed, tmp_path: Path) -> None:
    assert ask(guarded, "/metrics") == 200  # what a group without a key shows
    (tmp_path / "api.env").write_text(f"VLLM_API_KEY={KEY}\n")
    guarded.deploy(api_key_file=str(tmp_path / "api.env"))
    assert ask(guarded, "/health") == 200
    for path in ("/metrics", "/version", "/tokenize", "/invocations", "/docs", "/v1/models", "/"):
        assert ask(guarded, path) == ask(guarded, path, body={}) == ask(guarded, path, "wrong") == 401, path
    assert ask(guarded, "/metrics", KEY) == ask(guarded, "/v1/models", KEY) == 200
    status = guard_answers.group_status(guarded.box, "node0", GROUP)
    assert status["phase"] == "running"
    assert not status.get("metrics_problem")
    guarded.done("restart")  # the drain reads /metrics: it must not wait until its time is up


def test_an_engine_whose_middleware_is_gone_does_not_serve_without_it(guarded: GuardedTestbed, tmp_path: Path) -> None:
    (tmp_path / "api.env").write_text(f"VLLM_API_KEY={KEY}\n")
    guarded.deploy(api_key_file=str(tmp_path / "api.env"))
    guarded.sh("node0", f"rm /etc/muster/{GROUP}/engine/*.py; systemctl restart muster-{GROUP} || true")
    for _ in range(5):
        with pytest.raises((OSError, urllib.error.URLError)):
            ask(guarded, "/v1/models", KEY)
        guarded.sh("node0", "sleep 0.5")
    guarded.deploy(api_key_file=str(tmp_path / "api.env"))
    assert ask(guarded, "/v1/models", KEY) == 200
