"""What a measurement sends to the head: no key, and no directory that the engine's user could have prepared."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.bench import failed_requests, measured_group, run_eval, run_scenarios, scenario
from muster.plan.make import build_plan
from muster.spec import recipe
from muster.spec.host import HostSpec
from muster.spec.settings import Settings

KEY = "attack-key-0123456789abcdef0123456789"


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Run a scenario and an evaluation on a group with a key; return every request that the head was sent."""
    key_file = tmp_path / "key"
    key_file.write_text(f"VLLM_API_KEY={KEY}\n")
    key_file.chmod(0o600)
    loaded = recipe.load("kimi-k2-thinking")
    settings = Settings.model_validate({"api_key_file": str(key_file), "gsm8k_path": "/srv/gsm8k"})
    plan = build_plan(loaded, [HostSpec("gpu0", "10.0.0.1", None, "H200", 8)], settings)
    requests: list[dict[str, Any]] = []
    ended = {"running": False, "status": 1, "lines": ["no"], "result": None, "installed": True, "machine": "x86_64"}

    def ask(self: Any, host: str, programs: dict[str, Any], **_: Any) -> dict[str, Any]:
        requests.extend(programs.values())
        return dict.fromkeys(programs, ended)

    monkeypatch.setattr(measured_group.MeasuredGroup, "ask", ask)
    group = measured_group.MeasuredGroup(loaded, plan, settings, SimpleNamespace(), {})  # type: ignore[arg-type]
    load = scenario.pick(loaded, [], gpu="H200")[0]
    run_scenarios._run(group, load, 8, "muster-bench-x-1", 60, lambda _: None)
    running = measured_group.RunningEngine(measured_group.engine_log.EngineLog(), "", "")
    run_eval.evaluate(group, running, directory=tmp_path, limit=1, fewshot=0, say=lambda _: None)
    return requests


def test_the_key_stays_where_root_keeps_it(sent: list[dict[str, Any]]) -> None:
    assert KEY not in json.dumps(sent)
    starts = [request for request in sent if request.get("do") == "start"]
    assert len(starts) == 2
    assert {request["api_key_file"] for request in starts} == {"/etc/muster/kimi-k2-thinking/secrets.env"}


def test_no_request_names_a_directory_or_a_user(sent: list[dict[str, Any]]) -> None:
    tools = [request for request in sent if "do" in request]
    assert {request["do"] for request in tools} == {"start", "poll", "end"}
    for request in tools:
        assert not {"directory", "user"} & set(request)
        # Where the engine's user may write, root would follow what lies there.
        words = json.dumps({key: value for key, value in request.items() if key != "env"})
        assert "/var/lib/muster/" not in words
        assert "/var/cache/muster/" not in words


def test_the_program_beside_the_tool_writes_its_result_alone(sent: list[dict[str, Any]]) -> None:
    (start,) = (request for request in sent if failed_requests.FILE in (request.get("files") or {}))
    assert start["argv"][1:3] == [failed_requests.FILE, "/run/muster-bench-x-1/result.json"]
    assert start["argv"][3].endswith("/bin/vllm")
