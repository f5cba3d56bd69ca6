"""What a person wishes of a group that a guard runs: told to the guard, in slices that say what is waited for."""

from __future__ import annotations

import time
from typing import Any

from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared.polling import lengths
from muster.hosts.session import ask, fail, say

PATIENCE = 90
"""Seconds on top of the drain: the engine's exit, systemd's fresh guards, and their meeting at the head."""


def end_generation(state: State, host: Host, group: str, verb: str, since: str, drain_seconds: int) -> bool:
    """On the head: drain, end the generation, and stay until the group is stopped or a new generation runs.

    Args:
        state, host: pyinfra's.
        group: its name.
        verb: `stop` or `restart`.
        since: the generation that is to end; asking again ends no other.
        drain_seconds: of the plan that runs.
    """
    began = time.monotonic()
    if drain_seconds:
        say(host, f"requests in flight get up to {drain_seconds} s")
    for seconds in lengths():
        request = {"group": group, "command": verb, "wait": seconds}
        if verb == "restart":
            request["since"] = since
        answer = _answer(state, host, request)
        if "error" not in answer:
            return True
        passed = time.monotonic() - began
        if "pending" not in answer or passed > drain_seconds + PATIENCE:
            fail(host, f"{verb} failed after {passed:.0f} s: {answer.get('pending') or answer['error']}")
            fail(host, "  fix: mend what the message names, or stop the units by hand (systemctl stop)")
            return False
        say(host, f"waiting: {answer['pending']}, {passed:.0f} s")
    return False


def resume(state: State, host: Host, group: str, is_head: bool) -> bool:
    """Lift what holds the group: a stop, a spent budget; on each host also what its own fatal Xids block.

    A member whose head is out of reach is no failure: the head is told by itself.
    """
    answer = _answer(state, host, {"group": group, "command": "resume"})
    if "error" in answer:
        (fail if is_head else say)(host, answer["error"])
    return "error" not in answer or not is_head


def _answer(state: State, host: Host, request: dict[str, Any]) -> dict[str, Any]:
    told = ask(state, host, "ask_guard", request, f"guard {request['verb']}")
    answer = told.get("answer", told)
    return answer if isinstance(answer, dict) else {"error": f"the guard said {answer!r}"}
