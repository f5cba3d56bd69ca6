"""What the guards know reaches the person: blocks at once, by host, and an end where waiting cannot help."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muster.deploys.shared import guard_commands, polling
from muster.deploys.shared.guard_trouble import PATIENCE, GuardTrouble
from muster.deploys.shared.progress import Progress
from muster.plan.types import Check, Step
from tests.hosts.fake_host import FakeChannel, fake_host

XID = "Xid 79 on GPU 3; reset it, then run deploys/resume.py"


def status(*members: dict[str, str], **group: Any) -> dict[str, Any]:
    names = [{"host": "n1", "child": "none"}, {"host": "n2", "child": "none"}]
    return {
        "phase": "gather",
        "members": [{**n, **m} for n, m in zip(names, (*members, {}, {}), strict=False)],
        **group,
    }


def test_a_block_is_told_once_and_ends_the_wait_after_its_patience() -> None:
    trouble, blocked = GuardTrouble(0.0), status({}, {"blocked": XID})
    assert trouble.news(blocked, 0.0) == [f"n2: {XID}"]
    assert trouble.hopeless(blocked, 0.0) == ""
    assert trouble.news(blocked, PATIENCE - 1) == []
    assert trouble.hopeless(blocked, PATIENCE - 1) == ""
    assert trouble.hopeless(blocked, PATIENCE) == f"n2: {XID}"


def test_a_block_that_ends_by_itself_ends_nothing() -> None:
    trouble = GuardTrouble(0.0)
    trouble.news(status({"blocked": "1 compute processes hold GPUs"}), 0.0)
    trouble.news(status(), 10.0)
    late = status({"blocked": "port 8000 is taken"})
    assert trouble.news(late, 25.0) == ["n1: port 8000 is taken"]
    assert trouble.hopeless(late, 25.0) == ""
    fabric = status({}, {"blocked": "fabric state is In Progress"})
    trouble.news(fabric, 30.0)
    assert trouble.hopeless(fabric, 500.0) == ""


def test_a_refusal_and_a_spent_budget_are_told() -> None:
    trouble = GuardTrouble(0.0)
    assert trouble.news(status({"refused": "another plan"}), 0.0) == ["n1: another plan"]
    failed = status(phase="failed", reason="failed: the restart budget is spent")
    assert trouble.hopeless(failed, 1.0) == "failed: the restart budget is spent"


def test_a_new_failure_is_told_with_its_last_lines() -> None:
    trouble = GuardTrouble(0.0)
    old = {"host": "n1", "reason": "killed", "lines": "a"}
    assert trouble.news(status(failures=[old]), 0.0) == []
    new = {"host": "n2", "reason": "vllm ended with status 1", "lines": "\n".join(f"line {n}" for n in range(9))}
    told = trouble.news(status(failures=[new, old]), 1.0)
    assert told == ["n2: vllm ended with status 1", *(f"  line {n}" for n in range(4, 9))]
    assert trouble.news({}, 2.0) == []


def test_a_new_failure_is_told_when_guards_keep_no_more_of_them() -> None:
    trouble = GuardTrouble(0.0)
    full = [{"host": "n1", "reason": "killed", "generation": f"g{n}"} for n in range(8)]
    assert trouble.news(status(failures=full), 0.0) == []
    newer = [{"host": "n1", "reason": "killed", "generation": "g8"}, *full[:7]]
    assert trouble.news(status(failures=newer), 1.0) == ["n1: killed"]
    assert trouble.news(status(failures=newer), 2.0) == []


def failure(number: int, age: float, reason: str = "vllm ended with status 1, pid {}") -> dict[str, Any]:
    return {"host": "n2", "reason": reason.format(number), "generation": f"g{number}", "age": age, "lines": ""}


def test_a_rank_that_died_twice_with_one_reason_is_not_waited_for() -> None:
    trouble = GuardTrouble(100.0)
    old, first, second = failure(1, 80.0), failure(2, 20.0), failure(3, 5.0)
    assert trouble.hopeless(status(failures=[first, old]), 130.0) == ""
    twice = "n2: vllm ended with status 1, pid 3 (twice in this start)"
    assert trouble.hopeless(status(failures=[second, first, old]), 130.0) == twice
    second["lines"] = "INFO: loading\nRuntimeError: CUDA error\nbye\n"
    said = trouble.hopeless(status(failures=[second, first, old]), 130.0)
    assert said == f"{twice}: RuntimeError: CUDA error"
    second["reason"] = first["reason"] = "Worker failed: RuntimeError: CUDA error"
    said = trouble.hopeless(status(failures=[second, first, old]), 130.0)
    assert said == "n2: Worker failed: RuntimeError: CUDA error (twice in this start)"
    assert trouble.hopeless(status(failures=[failure(3, 5.0, "killed"), first, old]), 130.0) == ""
    assert trouble.hopeless(status(failures=[first, first]), 130.0) == ""


def test_bring_up_ends_with_the_host_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.deploys.shared.guard_trouble.PATIENCE", 0.0)
    monkeypatch.setattr(polling, "rest_of_poll", lambda *_: 0.0)
    units = {"done": False, "died": {}, "pending": "every rank", "last": {}, "since": {}, "host": "n1"}
    group = {**status({}, {"blocked": XID}), "generation": "g", "ready": False, "reason": "gather"}
    guard = {"unit": {"active": "active", "sub": "running", "restarts": 0}, "answer": {"group": group}}
    channels = [
        FakeChannel([json.dumps(answer).encode() + b"\n"]) for answer in ({"run_units": units}, {"ask_guard": guard})
    ]
    state, host = fake_host(*channels)
    step = Step("guards", {"n1": ("muster-g.service",)}, (Check("n1", "http", "http://n1/ready", "every rank"),))
    progress = Progress(("n1", "n2"), (step,), 3600, "g")
    assert polling.start(state, host, progress, 0) is False
    printed: list[str] = host.printed  # type: ignore[attr-defined]
    assert f"n2: {XID}" in printed
    assert f"the group cannot start, and waiting does not help: n2: {XID}" in printed
    assert progress.failure == f"n2: {XID}"


def test_a_generation_that_ends_once_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "rest_of_poll", lambda *_: 0.0)
    monkeypatch.setattr(polling, "_AFTER_END", 0)
    unit = "muster-g.service"
    answer = {"done": False, "died": {unit: ["CUDA error"]}, "pending": "", "last": {}, "since": {unit: "life1"}}
    up = {**answer, "done": True, "died": {}, "since": {unit: "life2"}}
    asked = {"unit": None, "answer": {"error": "between two lives"}}
    # The same end, seen twice while systemd waits, is one end.
    answers = [{"run_units": answer}, {"ask_guard": asked}] * 2 + [{"run_units": up}]
    state, host = fake_host(*(FakeChannel([json.dumps(each).encode() + b"\n"]) for each in answers))
    step = Step("guards", {"n1": (unit,)}, (Check("n1", "http", "http://n1/ready", "every rank"),))
    progress = Progress(("n1",), (step,), 3600, "g")
    assert polling.start(state, host, progress, 0) is True
    assert progress.ended == {"n1": ["life1"]}
    assert progress.ready_at
    printed: list[str] = host.printed  # type: ignore[attr-defined]
    assert printed.count(f"{unit} ended, and its guard starts the group again: CUDA error") == 1


def test_who_gives_a_command_is_a_word_that_guards_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    monkeypatch.setattr("socket.gethostname", lambda: "desk.example")
    assert guard_commands.operator_for_guards() == "ann@desk.example"
    monkeypatch.setattr("getpass.getuser", lambda: "ann b\x1b[2J")
    assert guard_commands.operator_for_guards() == ""
    monkeypatch.setenv("SUDO_USER", "bea")
    assert guard_commands.operator_for_guards() == "bea@desk.example"
