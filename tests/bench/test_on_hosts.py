"""The host program that runs a tool: on a real systemd host, with a script in the tool's place."""

from __future__ import annotations

import time
from typing import Any

import pytest

from muster.hosts import programs
from muster.sandbox import Sandbox
from tests.conftest import Boot

pytestmark = pytest.mark.sandbox

NAME = "muster-bench-20260101t000000z-test-1"
PLACE = f"/run/{NAME}"


@pytest.fixture
def box(sandbox: Boot) -> Sandbox:
    """One host."""
    return sandbox("bench", hosts=1)


def ask(box: Sandbox, **request: Any) -> dict[str, Any]:
    """Run the program as an SSH session would."""
    text = programs.bundle({"run_tool": request})
    state = box.exec("node0", ["/bin/sh", "-c", programs.COMMAND], stdin=text)
    return programs.answers(state.stdout.splitlines())["run_tool"]


def start(box: Sandbox, script: str, **own: Any) -> dict[str, Any]:
    request = {
        "do": "start",
        "name": NAME,
        "argv": ["/bin/sh", "-c", script],
        "env": {"SAID": 'a "quoted" $word'},
        "seconds": 60,
        "files": {"task.yaml": "task: x\n"},
    }
    return ask(box, **(request | own))


def finish(box: Sandbox) -> dict[str, Any]:
    """Look until the tool has ended."""
    deadline = time.monotonic() + 60
    while True:
        state = ask(box, do="poll", name=NAME, result=".json")
        if state.get("running") is not True or time.monotonic() > deadline:
            return state
        time.sleep(0.5)


def test_a_tool_runs_as_its_user_and_brings_its_result_back(box: Sandbox) -> None:
    script = 'test -r task.yaml && echo $USER && mkdir out && echo "{\\"said\\": 1}" > out/r.json && echo "$SAID" >&2'
    try:
        assert start(box, script) == {}
        state = finish(box)
        assert (state["running"], state["status"], state["result"]) == (False, 0, '{"said": 1}\n'), state
        assert state["lines"][-2:] == ["muster-tools", 'a "quoted" $word']
    finally:
        assert ask(box, do="end", name=NAME) == {}
    assert box.exec("node0", ["/bin/sh", "-c", f"ls -d {PLACE} /run/private/{NAME} || true"]).stdout == ""


def test_a_tool_that_fails_or_takes_too_long_says_so(box: Sandbox) -> None:
    for script, seconds, status, last in (
        ("echo no tokenizer; exit 3", 60, 3, "no tokenizer"),
        ("sleep 600", 1, 0, "Failed with result 'timeout'."),
    ):
        try:
            assert start(box, script, seconds=seconds) == {}
            state = finish(box)
            assert state["result"] is None
            assert state["running"] is False
            assert state["status"] == status or state["why"] == "timeout"
            assert state["lines"][-1].endswith(last)
        finally:
            ask(box, do="end", name=NAME)


def test_a_tool_that_is_gone_before_the_journal_asks_whose_it_is_has_said_why(box: Sandbox) -> None:
    journald = "systemctl kill --kill-whom=main --signal={} systemd-journald.service"
    box.exec("node0", ["/bin/sh", "-c", journald.format("STOP")])
    try:
        assert start(box, "echo no tokenizer; exit 3") == {}
        ended = f"for i in $(seq 100); do ! systemctl is-failed {NAME} || exit 0; sleep 0.1; done; exit 1"
        box.exec("node0", ["/bin/sh", "-c", ended])
    finally:
        box.exec("node0", ["/bin/sh", "-c", journald.format("CONT")])
    try:
        assert finish(box)["lines"][-1] == "no tokenizer"
    finally:
        ask(box, do="end", name=NAME)


def test_the_api_key_reaches_the_tool_and_no_command_line(box: Sandbox) -> None:
    box.exec("node0", ["/bin/sh", "-c", "umask 077; echo VLLM_API_KEY=s3cret-word > /root/key.env"])
    try:
        start(box, "echo ${#OPENAI_API_KEY}; sleep 2", api_key_file="/root/key.env")
        look = f"systemctl show {NAME}; cat /proc/*/cmdline; find /run/muster-tools -type f -exec cat {{}} +"
        shown = box.exec("node0", ["/bin/sh", "-c", look])
        assert "s3cret-word" not in shown.stdout
        assert finish(box)["lines"][-1] == "11"
    finally:
        ask(box, do="end", name=NAME)


def test_a_name_that_is_no_measurement_is_refused(box: Sandbox) -> None:
    assert "no unit of a measurement" in ask(box, do="end", name="ssh")["error"]
