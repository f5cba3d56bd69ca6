"""Units started, stopped and watched in polls of one SSH session each; when a rank dies, the whole group ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import gevent
from gevent.event import Event
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared.guard_trouble import GuardTrouble
from muster.deploys.shared.progress import Progress
from muster.hosts import programs
from muster.hosts.run_programs import run_program
from muster.hosts.run_words import words
from muster.hosts.say import fail, say
from muster.hosts.say import progress as show
from muster.plan.types import Step
from muster.status.failures import decisive

# Mistakes show in the first seconds; a long wait must not cost a session every few seconds.
_FIRST = (5, 10, 20, 40)
_LONGEST = 60
_GUARD_POLL = 10
"""Seconds between two looks at what the guards say: a block is told within half a minute."""
_AFTER_END = 2
"""Seconds of the poll after a generation has ended."""
_LIVES = 3
"""Ends of a host's guard after which a start is given up, whatever they were."""
_STOP_TIMEOUT = 3600
_LOG_WIDTH = 160


def poll_seconds() -> Iterator[int]:
    """Yield how many seconds each poll may last."""
    yield from _FIRST
    while True:
        yield _LONGEST


def rest_of_poll(began: float, seconds: float) -> float:
    """Return the seconds until a poll should have ended: a host that answers at once is not asked without pause."""
    return max(0.0, began + seconds - time.monotonic())


def stop(state: State, host: Host, units: tuple[str, ...], progress: Progress | None = None) -> bool:
    """Stop units and wait until none of their processes is left; systemd ends what does not go by itself."""
    began, words.touched = time.monotonic(), True
    fence = progress.fence(host.name) if progress is not None else None
    if progress is not None:
        progress.stop_begins()
    for seconds in poll_seconds():
        poll_began = time.monotonic()
        request = {"do": "stop", "units": units, "seconds": seconds, "fence": fence}
        answer = run_program(state, host, "run_units", request)
        if "error" in answer or time.monotonic() - began > _STOP_TIMEOUT:
            fail(host, answer.get("error") or f"{answer['pending']} after {_STOP_TIMEOUT} s")
            return False
        if answer["done"]:
            return True
        show(host, f"waiting for {answer['pending']}, {time.monotonic() - began:.0f} s")
        gevent.sleep(rest_of_poll(poll_began, seconds))
    return False


def start(state: State, host: Host, progress: Progress, number: int) -> bool:
    """Start this host's units of one step and wait until the step is up, here and on the hosts with its checks."""
    words.touched = True
    return _await_step(state, host, progress, number, progress.steps[number].units.get(host.name, ()))


def wait(state: State, host: Host, progress: Progress, number: int) -> bool:
    """Wait until one step is up; starts nothing."""
    return _await_step(state, host, progress, number, ())


def _await_step(state: State, host: Host, progress: Progress, number: int, starting: tuple[str, ...]) -> bool:
    step = progress.steps[number]
    checks = [asdict(check) for check in step.checks if check.host == host.name]
    progress.begin()
    if checks:
        progress.asking.setdefault(number, set()).add(host.name)
    request: dict[str, Any] = {"do": "start" if starting else "wait", "start": starting, "checks": checks}
    request["fence"] = progress.fence(host.name)
    # One host asks the head's guard, which knows of all: the head itself.
    trouble = (
        GuardTrouble(progress.started) if progress.guarded_group and checks and host.name == progress.hosts[0] else None
    )
    ended = False
    for longest in poll_seconds():
        # After an end the guard is asked as soon as it is up again: before the next generation has ended as well.
        seconds = _AFTER_END if ended else longest if trouble is None else min(longest, _GUARD_POLL)
        request |= {
            "units": _up_to(progress, host.name, number),
            "since": progress.since.get(host.name, {}),
            "seconds": min(seconds, max(1.0, progress.left)),
        }
        answer = _poll(state, host, progress, request, progress.up(number) if request.get("hold") else Event())
        if answer is None:
            if progress.failed.is_set():
                say(host, f"stopped waiting: {progress.failure}")
            return not progress.failed.is_set()
        ended = bool(answer.get("died")) and _starts_again(host, progress, answer)
        if "error" in answer or (answer["died"] and not ended):
            _died(host, progress, answer)
            return False
        if not ended:
            progress.since[host.name] = answer["since"]
        if answer["done"] and _is_up(host, progress, number, step):
            return True
        if trouble is not None and _is_hopeless(state, host, progress, trouble):
            return False
        # A host that only watches leaves it to those with checks to report what is late.
        if progress.left < (0 if answer["pending"] else -_LONGEST):
            _late(host, progress, answer)
            return False
        if ended:
            gevent.wait([progress.failed], timeout=_AFTER_END / 2)
        _report(host, progress, answer)
        # While others run the checks, this host only watches for the death of its own ranks.
        request |= {"do": "wait", "hold": bool(answer["done"])}
    return False


def _starts_again(host: Host, progress: Progress, answer: programs.Answer) -> bool:
    """Whether a rank that has ended is waited for once more: under guards, which start the whole group again.

    What two generations ended by is known from the head's guard; a host's own count only bounds it.
    """
    if not progress.guarded_group:
        return False
    lives = progress.ended.setdefault(host.name, [])
    for unit, lines in answer["died"].items():
        life = answer["since"].get(unit, "")
        if life not in lives:
            lives.append(life)
            say(host, f"{unit} ended, and its guard starts the group again: {_why(lines) or 'no line in its log'}")
    progress.since[host.name] = {unit: life for unit, life in answer["since"].items() if unit not in answer["died"]}
    return len(lives) < _LIVES


def _is_hopeless(state: State, host: Host, progress: Progress, trouble: GuardTrouble) -> bool:
    """Ask the head's guard what keeps the group; print what is new, and end for all where waiting cannot help."""
    answer = run_program(state, host, "ask_guard", {"group": progress.guarded_group, "command": "status"}, seconds=30)
    status = answer.get("answer", {}).get("group") or {}
    for line in trouble.news(status, time.monotonic()):
        say(host, line)
    reason = trouble.hopeless(status, time.monotonic())
    if reason:
        fail(host, f"the group cannot start, and waiting does not help: {reason}")
        fail(host, "  fix: do what this says; the guards start the group as soon as nothing blocks it")
        progress.fail(reason)
    return bool(reason)


def _up_to(progress: Progress, name: str, number: int) -> tuple[str, ...]:
    """Return the units that a host has started by a step: each must stay alive."""
    return tuple(unit for step in progress.steps[: number + 1] for unit in step.units.get(name, ()))


def _is_up(host: Host, progress: Progress, number: int, step: Step) -> bool:
    """Whether the step is up for this host, whose own units and checks are fine."""
    asking = {check.host for check in step.checks} & set(progress.hosts)
    passed = progress.passed.setdefault(number, set())
    if host.name in asking:
        passed.add(host.name)
    if passed >= asking:
        progress.up(number).set()
        if number == len(progress.steps) - 1:
            progress.is_ready()
    # A host that has not begun its checks may be waiting for this one's place in pyinfra's pool.
    return host.name in asking or passed >= asking or not asking <= progress.asking.get(number, set())


def _poll(
    state: State, host: Host, progress: Progress, request: Mapping[str, Any], up: Event
) -> programs.Answer | None:
    """Run one poll; None as soon as another host of the group has failed, or the step is up."""
    if progress.failed.is_set():
        return None
    began = time.monotonic()
    session = gevent.spawn(run_program, state, host, "run_units", request)
    gevent.wait([session, progress.failed, up], count=1)
    if not session.ready():
        session.kill(block=False)
        return None
    answer: programs.Answer = session.get()
    if answer.get("pending"):
        gevent.wait([progress.failed, up], timeout=rest_of_poll(began, request["seconds"]), count=1)
    return answer


def _report(host: Host, progress: Progress, answer: programs.Answer) -> None:
    if not answer["pending"]:
        return
    text = f"waiting until {answer['pending']}, {progress.passed_seconds:.0f} s"
    last = next((line for line in answer["last"].values() if line), "")
    show(host, f"{text}; last log: {last[:_LOG_WIDTH]}" if last else text)


def _died(host: Host, progress: Progress, answer: programs.Answer) -> None:
    if "error" in answer:
        fail(host, answer["error"])
        progress.fail(f"{host.name}: {answer['error'].splitlines()[0]}")
        return
    first = next(iter(answer["died"]))
    for unit, lines in answer["died"].items():
        fail(host, f"{unit} died; its last lines:")
        for line in lines:
            fail(host, f"  {line}")
        fail(host, f"  more: journalctl -u {unit}")
    why = _why(answer["died"][first])
    progress.fail(f"{first} died on {host.name}{f': {why}' if why else ''}")


def _why(lines: Sequence[str]) -> str:
    """Return the line of a log that says why its unit ended: the one that names an exception, else the first."""
    return decisive("\n".join(lines)) or next(iter(lines), "")[:_LOG_WIDTH]


def _late(host: Host, progress: Progress, answer: programs.Answer) -> None:
    fail(host, f"not ready after {progress.ready_timeout} s: waited until {answer['pending'] or 'others are up'}")
    for unit, line in answer["last"].items():
        fail(host, f"  {unit}: {line}")
    fail(host, "  fix: raise ready_timeout if the log shows progress, such as weights being loaded")
    progress.fail(f"{host.name} was not ready in time")
