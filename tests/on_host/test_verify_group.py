"""Verification asks what a user would: the name, every rank, tool calling; and what really runs."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.guard.endpoint_kinds import KINDS
from muster.on_host import systemd_units, verify_group


class Engine(http.server.BaseHTTPRequestHandler):
    """An endpoint that behaves as its server's `dead`, `tools`, `key` and `good` say."""

    def _say(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        server: Any = self.server
        if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
            self._say(401, {"error": "Unauthorized"})
        else:
            self._say(200, {"data": [{"id": "kimi-k2"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        server.asked.append((self.path, dict(self.headers), body))
        if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
            self._say(401, {"error": "Unauthorized"})
        elif int(self.headers.get("X-data-parallel-rank", -1)) in server.dead:
            self._say(500, {"error": "EngineCore died"})
        elif body.get("tools") and not server.tools:
            self._say(400, {"error": '"auto" tool choice requires --enable-auto-tool-choice'})
        else:
            self._say(200, server.good)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    server.dead, server.tools, server.key, server.asked = set(), True, "", []
    server.good = {"choices": [{"text": "9"}]}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(engine: Any, **more: Any) -> dict[str, Any]:
    request = {
        "units": [],
        "processes": [],
        "url": f"http://127.0.0.1:{engine.server_address[1]}",
        "model": "kimi-k2",
        "ranks": 4,
        "first_rank": 0,
        "question": KINDS["completions"].question("kimi-k2"),
        "tool_calling": True,
        "seconds": 10,
    }
    return verify_group.main({**request, **more})


def test_every_rank_is_asked_by_name_for_a_few_tokens(engine: Any) -> None:
    assert ask(engine) == {"problems": [], "ranks": [0, 1, 2, 3], "served": ["kimi-k2"]}
    pinned = [headers for path, headers, _ in engine.asked if path == "/v1/completions"]
    assert sorted(headers["X-Data-Parallel-Rank"] for headers in map(_titled, pinned)) == ["0", "1", "2", "3"]
    assert all(body["max_tokens"] <= 3 for _, _, body in engine.asked)


def _titled(headers: dict[str, str]) -> dict[str, str]:
    return {key.title(): value for key, value in headers.items()}


def test_a_silent_rank_is_named_with_the_engines_words(engine: Any) -> None:
    engine.dead = {2}
    told = ask(engine)
    assert told["problems"] == ['DP rank 2 did not answer /v1/completions: HTTP 500: {"error": "EngineCore died"}']
    assert told["ranks"] == [0, 1, 3]


def test_a_host_that_answers_for_its_own_ranks_is_asked_from_0_and_named_from_its_first(engine: Any) -> None:
    engine.dead = {1}
    told = ask(engine, ranks=2, first_rank=6)
    assert told["problems"] == ['DP rank 7 did not answer /v1/completions: HTTP 500: {"error": "EngineCore died"}']
    assert told["ranks"] == [6]


@pytest.mark.parametrize("name", [name for name in KINDS if name != "completions"])
def test_a_model_is_asked_what_it_answers_and_nothing_else(engine: Any, name: str) -> None:
    kind = KINDS[name]
    engine.good = {kind.rows: [{kind.holds: [0.5]}]}
    asked = {"question": kind.question("kimi-k2"), "tool_calling": None}
    assert ask(engine, ranks=2, **asked) == {"problems": [], "ranks": [0, 1], "served": ["kimi-k2"]}
    assert {path for path, _, _ in engine.asked} == {kind.path}
    assert all("X-Data-Parallel-Rank" not in _titled(headers) for _, headers, _ in engine.asked)
    for other in ({}, {kind.rows: []}, {kind.rows: [7]}, {kind.rows: [{"index": 0}]}, {kind.rows: "text"}):
        engine.good = other
        (problem,) = ask(engine, ranks=1, **asked)["problems"]
        assert problem == f"DP rank 0 did not answer {kind.path}: an answer without {kind.rows}"


def test_another_name_than_planned_is_a_problem(engine: Any) -> None:
    problem = ask(engine, model="kimi-k3")["problems"][0]
    assert "names ['kimi-k2'], not 'kimi-k3'" in problem


@pytest.mark.parametrize(("planned", "works"), [(True, False), (False, True)])
def test_tool_calling_is_on_exactly_when_planned(engine: Any, planned: bool, works: bool) -> None:
    engine.tools = works
    problems = ask(engine, tool_calling=planned)["problems"]
    assert len(problems) == 1
    assert "tool calling" in problems[0]
    engine.tools = planned
    assert ask(engine, tool_calling=planned)["problems"] == []


def test_the_key_is_read_on_the_host(engine: Any, tmp_path: Path) -> None:
    key = tmp_path / "secrets.env"
    key.write_text("VLLM_API_KEY=sesame\n")
    engine.key = "sesame"
    assert ask(engine, api_key_file=str(key))["problems"] == []
    assert ask(engine)["problems"]


def test_an_endpoint_that_is_not_there(engine: Any) -> None:
    problems = ask(engine, url="http://127.0.0.1:9")["problems"]
    assert "names nothing" in problems[0]


ARGV = ["vllm", "serve", "m", "--port", "8000"]
ENGINE = ["/e/bin/python", "/e/bin/vllm", "serve", "m", "--port", "8000"]
GUARD = ["/usr/bin/python3", "-I", "/opt/muster/guard/1", "--config", "/etc/muster/g/guard.json", "--", *ARGV]


def problems(
    monkeypatch: pytest.MonkeyPatch,
    lines: list[list[str]],
    *,
    main: list[str] | None = None,
    env: dict[str, str] | None = None,
    **state: Any,
) -> list[str]:
    """Return what is wrong with a unit of the plan `new` whose processes, the main one first, have these lines."""
    shown = {"active": "active", "main_pid": 7, "reload": False, "digest": "new", **state}
    by_process = {7 + number: line for number, line in enumerate(lines)}
    monkeypatch.setattr(systemd_units, "states", lambda names: {names[0]: shown})
    monkeypatch.setattr(systemd_units, "environment", lambda pid: {"A": "1", "B": "2", **(env or {})})
    monkeypatch.setattr(verify_group, "command_lines", lambda pid: dict(by_process))
    monkeypatch.setattr(verify_group, "command_line", by_process.get)
    process = {"unit": "u.service", "argv": ARGV, "env": {"A": "1", "B": "2"}, "guarded": main is not None}
    units = [{"unit": "u.service", "digest": "new", "argv": main or []}]
    found: list[str] = verify_group.main({"units": units, "processes": [process]})["problems"]
    return found


def test_the_running_command_line_is_the_planned_one_behind_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, [ENGINE, ["VLLM::EngineCore"]]) == []


def test_the_planned_process_is_a_child_of_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, [GUARD, ENGINE], main=GUARD) == []


def test_the_loader_that_a_guard_has_chosen_ends_the_planned_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = [*ENGINE, "--load-format", "instanttensor"]
    assert problems(monkeypatch, [GUARD, loads], main=GUARD) == []
    assert problems(monkeypatch, [GUARD, [*ENGINE, "--load-in", "x"]], main=GUARD) != []
    assert problems(monkeypatch, [loads]) != [], "without a guard nobody adds it"


def test_a_guard_whose_own_command_line_ends_in_the_planned_one_is_not_its_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert problems(monkeypatch, [GUARD], main=GUARD) == [
        "u.service runs `nothing`, not the planned `vllm serve m --port 8000`"
    ]


def test_what_stands_by_for_the_next_generation_is_not_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = [
        "/opt/e/bin/python",
        "/opt/muster/guard/1/guard/standby_program.py",
        "5",
        "m",
        "/opt/e/bin/vllm",
        *ARGV[1:],
    ]
    assert problems(monkeypatch, [GUARD, waits, ENGINE], main=GUARD) == []
    assert problems(monkeypatch, [GUARD, waits], main=GUARD) == [
        "u.service runs `nothing`, not the planned `vllm serve m --port 8000`"
    ]


def test_another_command_line_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, [["/e/bin/python", "/e/bin/vllm", "serve", "m", "--port", "9000"]]) == [
        "u.service runs `/e/bin/python /e/bin/vllm serve m --port 9000`, not the planned `vllm serve m --port 8000`"
    ]
    older = [*GUARD[:2], "/opt/muster/guard/0", *GUARD[3:]]
    (problem,) = problems(monkeypatch, [older, ENGINE], main=GUARD)
    assert problem.startswith("u.service is `/usr/bin/python3 -I /opt/muster/guard/0 --config")


def test_another_environment_is_named_without_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, [ENGINE], env={"B": "sesame"}) == [
        "u.service runs vllm with other values than planned of B"
    ]


def test_a_unit_of_another_plan_or_one_that_systemd_is_behind_with(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, [ENGINE], digest="old") == ["u.service runs plan old, not new"]
    assert problems(monkeypatch, [ENGINE], reload=True) == [
        "systemd holds an older u.service than its file: the next start would run something else"
    ]


def test_a_unit_that_does_not_run_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, [], active="failed") == ["u.service is failed, not active"]


def test_command_lines_of_a_process_and_its_children() -> None:
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 60; true"])
    expected = [["/bin/sh", "-c", "sleep 60; true"], ["sleep", "60"]]
    try:
        for _ in range(1000):
            lines = verify_group.command_lines(child.pid)
            if list(lines.values()) == expected:  # not yet: between its fork and its exec a process has no line
                break
            time.sleep(0.01)
    finally:
        subprocess.run(["pkill", "-P", str(child.pid)], check=False)
        child.kill()
        child.wait()
    assert list(lines.values()) == expected
    assert next(iter(lines)) == child.pid
