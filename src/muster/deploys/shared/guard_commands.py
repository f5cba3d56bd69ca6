"""Commands to guards: stop, restart and resume, in polls that print what is awaited."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gevent
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared import polling
from muster.deploys.shared.operator import operator
from muster.deploys.shared.polling import poll_seconds, rest_of_poll
from muster.hosts.run_programs import run_program
from muster.hosts.run_words import words
from muster.hosts.say import fail, progress, say

PATIENCE = 90
"""Seconds on top of the drain: the engine's exit, systemd's fresh guards, and their meeting at the head."""

_START_SECONDS = 60


def hold(state: State, host: Host, group: str, units: tuple[str, ...], stays: bool) -> bool:
    """End this host's ranks and have it hold the group, through a reboot too, without the head's guard.

    Args:
        state, host: pyinfra's.
        group: its name.
        units: of this host.
        stays: whether its guard is to run on, to keep a head that is off from starting the group when it returns. A
            guard that does not answer, for it may be between two lives, is started anew with the hold.
    """
    words.touched = True
    if stays and "error" not in reply(state, host, {"group": group, "command": "status"}):
        return end_generation(state, host, group, "stop", "", 0, [])
    if not polling.stop(state, host, units):
        return False
    answer = reply(state, host, {"group": group, "command": "stop"})
    if "error" in answer:
        fail(host, f"the units are stopped, but nothing keeps them so through a reboot: {answer['error']}")
        return False
    if stays:
        request = {"do": "start", "units": units, "start": units, "seconds": _START_SECONDS}
        started = run_program(state, host, "run_units", request)
        if "error" in started or not started["done"]:
            why = started.get("error") or started["pending"] or f"{', '.join(started['died'])} ended"
            fail(host, f"the group is stopped here, but no guard tells the head so when it returns: {why}")
            return False
    return True


def end_generation(
    state: State, host: Host, group: str, command: str, since: str, drain_seconds: int, absent: Sequence[str]
) -> bool:
    """On the head: drain, end the generation, and wait until the group is stopped or a new generation runs.

    Args:
        state, host: pyinfra's.
        group: its name.
        command: `stop` or `restart`.
        since: the generation that is to end; a second request ends no other.
        drain_seconds: of the plan that runs.
        absent: hosts of the group that this run does without; a stop does not wait for them.
    """
    began, words.touched = time.monotonic(), True
    if drain_seconds:
        say(host, f"requests in flight get up to {drain_seconds} s")
    for seconds in poll_seconds():
        request = {"group": group, "command": command, "wait": seconds, "by": operator_for_guards()}
        if command == "restart":
            request["since"] = since
        elif absent:
            request["absent"] = list(absent)
        poll_began = time.monotonic()
        answer = reply(state, host, request)
        if "error" not in answer:
            return True
        passed = time.monotonic() - began
        if "pending" not in answer or passed > drain_seconds + PATIENCE:
            fail(host, f"{command} failed after {passed:.0f} s: {answer.get('pending') or answer['error']}")
            fail(host, "  fix: mend what the message names, or stop the units by hand (systemctl stop)")
            return False
        progress(host, f"waiting: {answer['pending']}, {passed:.0f} s")
        gevent.sleep(rest_of_poll(poll_began, seconds))
    return False


def operator_for_guards() -> str:
    """Return who gives a command, for the status of a stopped group; empty where a guard would not take the name."""
    # The guard's program takes longer to import than most of a run that gives no command.
    from muster.guard.answers import OPERATOR

    name = operator()
    return name if OPERATOR.fullmatch(name) else ""


def resume(state: State, host: Host, group: str, is_head: bool) -> bool:
    """Lift what holds the group (a stop, a spent budget), and on each host the block of its own fatal Xids.

    A member whose head is out of reach is no failure: the head gets a command of its own.
    """
    words.touched = True
    answer = reply(state, host, {"group": group, "command": "resume"})
    if "error" in answer:
        (fail if is_head else say)(host, answer["error"])
    return "error" not in answer or not is_head


def reply(state: State, host: Host, request: dict[str, Any]) -> dict[str, Any]:
    """Return what a host's guard answers to a request of `muster.on_host.ask_guard`; {error: text} where none does."""
    answer = run_program(state, host, "ask_guard", request)
    its: dict[str, Any] = answer.get("answer", answer)
    return its
