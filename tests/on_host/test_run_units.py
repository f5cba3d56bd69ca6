"""Units are started, stopped and watched in slices; a death is seen, whatever systemd makes of it afterwards."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import run_units

FAKE = """\
#!{python}
import json, pathlib, sys
state = pathlib.Path({state!r})
units = json.loads(state.read_text())
words = [word for word in sys.argv[1:] if not word.startswith("-")]
with open(state.parent / "calls", "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if words[0] == "start":
    for name in words[1:]:
        units[name].update(ActiveState="active", SubState="running", InvocationID=units[name]["next"])
elif words[0] == "stop":
    for name in words[1:]:
        units[name].update(ActiveState=units[name].get("stops", "inactive"), SubState="dead")
elif words[0] == "show":
    for name in words[1:]:
        print("\\n".join(f"{{key}}={{value}}" for key, value in {{"Id": name, **units[name]}}.items()) + "\\n")
if words[0] != "show":  # what a test sets meanwhile would be undone
    state.write_text(json.dumps(units))
"""


class Systemd:
    """A systemctl and a journalctl of a test's own."""

    def __init__(self, tools: Path) -> None:
        self.tools, self.file = tools, tools / "units.json"

    def set(self, name: str, **shown: str) -> None:
        units = json.loads(self.file.read_text()) if self.file.exists() else {}
        before = units.get(name, {"ActiveState": "inactive", "SubState": "dead", "InvocationID": "", "next": "life1"})
        units[name] = {**before, **shown}
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(units))
        new.replace(self.file)  # a systemctl may be reading it

    def says(self, text: str) -> None:
        (self.tools / "journalctl").write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        (self.tools / "journalctl").chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return (self.tools / "calls").read_text().splitlines()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    import sys

    there = Systemd(tmp_path)
    (tmp_path / "systemctl").write_text(FAKE.format(python=sys.executable, state=str(there.file)))
    (tmp_path / "systemctl").chmod(0o755)
    there.says("last line")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(run_units, "_POLL", 0.01)
    return there


def do(what: str, names: list[str], seconds: float = 0.05, **more: Any) -> dict[str, Any]:
    return run_units.main({"do": what, "units": names, "start": names, "seconds": seconds, **more})


def test_units_that_are_not_to_start_at_boot_are_disabled_under_the_lock_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = list[list[str]]()
    monkeypatch.setattr(run_units.run_command, "must", lambda argv, _seconds: ran.append(argv))
    assert do("disable", ["a.service"])["done"]
    assert ran == [["systemctl", "disable", "--quiet", "--", "a.service"]]
    with pytest.raises(OSError, match="lost the lock"):
        do("disable", ["a.service"], fence={"group": "no-such-group", "change": "1"})
    assert len(ran) == 1


def test_a_start_that_waits_for_what_it_requires_is_no_death(systemd: Systemd) -> None:
    ended = {"ActiveState": "inactive", "SubState": "dead", "InvocationID": "old"}
    systemd.set("a.service", **ended, Job="17")
    answer = do("wait", ["a.service"])
    assert (answer["died"], answer["pending"], answer["since"]) == ({}, "a.service to start", {})
    systemd.set("a.service", ActiveState="active", SubState="running", InvocationID="new", Job="")
    assert do("wait", ["a.service"], since=answer["since"])["done"]
    systemd.set("a.service", **ended, Job="0")
    assert "a.service" in do("wait", ["a.service"])["died"]


def test_a_start_waits_until_the_unit_runs(systemd: Systemd) -> None:
    systemd.set("a.service")
    told = do("start", ["a.service"], seconds=5)
    assert told["done"]
    assert told["since"] == {"a.service": "life1"}
    assert [call.split()[0] for call in systemd.calls if not call.startswith("show")] == ["reset-failed", "start"]


def test_a_slice_ends_with_what_is_awaited_and_the_last_log_line(systemd: Systemd) -> None:
    systemd.set("a.service", ActiveState="activating", InvocationID="life1")
    told = do("wait", ["a.service"])
    assert (told["done"], told["died"], told["pending"]) == (False, {}, "a.service to start")
    assert told["last"] == {"a.service": "last line"}


@pytest.mark.parametrize(
    "end",
    [
        {"ActiveState": "failed"},
        {"ActiveState": "activating", "SubState": "auto-restart"},
        {"ActiveState": "active", "InvocationID": "life2"},
        {"ActiveState": "inactive"},
        {"ActiveState": "deactivating"},
    ],
    ids=["failed", "restarting", "restarted", "ended with 0", "ending"],
)
def test_every_kind_of_death_is_one(systemd: Systemd, end: dict[str, str]) -> None:
    systemd.set("a.service", ActiveState="active", SubState="running", InvocationID="life1")
    systemd.set("a.service", **end)
    told = do("wait", ["a.service"], since={"a.service": "life1"}, seconds=5)
    assert not told["done"]
    assert list(told["died"]) == ["a.service"]


def test_a_unit_not_yet_started_is_not_dead(systemd: Systemd) -> None:
    systemd.set("a.service")
    told = do("wait", ["a.service"])
    assert told["died"] == {}
    assert told["pending"] == "a.service to start"


VLLM_DIES = """\
(APIServer pid=1) INFO 11-21 23:04:26 [cpu.py:644] loading
Failed to import from vllm._C: ImportError('libnuma.so.1: cannot open shared object file')
(Worker pid=9) ERROR 11-21 23:04:29 [exec.py:953] Traceback (most recent call last):
(Worker pid=9) ERROR 11-21 23:04:29 [exec.py:953]   File "x.py", line 920, in worker_main
(Worker pid=9) ERROR 11-21 23:04:29 [exec.py:953]     raise AttributeError(
(Worker pid=9) ERROR 11-21 23:04:29 [exec.py:953] AttributeError: no attribute 'init'
""" + "\n".join(f"(APIServer pid=1) INFO 11-21 23:04:30 [api.py:1] shutting down {n}" for n in range(20))


def test_a_death_is_told_with_its_cause_and_its_last_lines(systemd: Systemd) -> None:
    systemd.says(VLLM_DIES)
    systemd.set("a.service", ActiveState="failed", InvocationID="life1")
    words = do("wait", ["a.service"], since={"a.service": "life1"})["died"]["a.service"]
    assert words[0] == "Failed to import from vllm._C: ImportError('libnuma.so.1: cannot open shared object file')"
    assert words[1] == "AttributeError: no attribute 'init'"
    assert words[-1] == "shutting down 19"
    assert len(words) < 15


def test_a_stop_is_over_when_no_process_is_left(systemd: Systemd) -> None:
    systemd.set("a.service", ActiveState="active")
    assert do("stop", ["a.service"], seconds=5)["done"]
    systemd.set("b.service", ActiveState="active", stops="deactivating")
    told = do("stop", ["b.service"])
    assert not told["done"]
    assert told["pending"] == "b.service to stop"


def test_nothing_to_do_asks_nobody(tmp_path: Path) -> None:
    assert do("stop", [])["done"]


class Health(http.server.BaseHTTPRequestHandler):
    """Answers /health with what the server's `status` says."""

    def do_GET(self) -> None:
        self.send_response(getattr(self.server, "status", 503))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def health() -> Iterator[http.server.HTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_layer_is_up_when_every_check_passes(systemd: Systemd, health: http.server.HTTPServer) -> None:
    systemd.set("a.service", ActiveState="active", InvocationID="life1")
    url = f"http://127.0.0.1:{health.server_address[1]}/health"
    check = {"kind": "http", "target": url, "text": "the head answers /health"}
    told = do("wait", ["a.service"], checks=[check])
    assert (told["done"], told["pending"]) == (False, "the head answers /health")
    health.status = 200  # type: ignore[attr-defined]
    assert do("wait", ["a.service"], checks=[check], seconds=5)["done"]


@pytest.mark.usefixtures("as_myself")
def test_checks_by_port_and_by_command() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        assert run_units.passes({"kind": "tcp", "target": target})
    assert not run_units.passes({"kind": "tcp", "target": target})
    assert run_units.passes({"kind": "command", "target": ["true"]})
    words = ["/usr/bin/env", "A=1=2", "RAY_AUTH_TOKEN_PATH=/t", "sh", "-c", 'test "$A$RAY_AUTH_TOKEN_PATH" = 1=2/t']
    assert run_units.passes({"kind": "command", "target": words})
    assert not run_units.passes({"kind": "command", "target": ["false"]})
    assert not run_units.passes({"kind": "http", "target": f"http://{target}/"})


def test_a_holding_host_stays_for_its_slice_and_still_sees_a_death(systemd: Systemd) -> None:
    systemd.set("a.service", ActiveState="active", InvocationID="life1")
    timer = threading.Timer(0.1, systemd.set, ("a.service",), {"ActiveState": "failed"})
    timer.start()
    told = do("wait", ["a.service"], since={"a.service": "life1"}, seconds=60, hold=True)
    timer.join()
    assert list(told["died"]) == ["a.service"]
