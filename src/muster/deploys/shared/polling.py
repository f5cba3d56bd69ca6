"""Work on units in slices, one SSH session each: say what is awaited, and end for the whole group when a rank dies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import gevent
from gevent.event import Event
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared.progress import Progress
from muster.hosts import programs
from muster.hosts.session import ask, current_arguments, fail, say
from muster.plan.types import Step

# The first answers come soon, where a mistake shows; a long wait must not cost a session every few seconds.
_SLICES = (5, 10, 20, 40)
_LONGEST = 60
_STOP_TIMEOUT = 3600
_LOG_WIDTH = 160


def lengths() -> Iterator[int]:
    """Yield how many seconds each slice may last."""
    yield from _SLICES
    while True:
        yield _LONGEST


def stop(state: State, host: Host, progress: Progress, units: tuple[str, ...]) -> bool:
    """Stop units and wait until none of their processes is left; systemd ends what does not go by itself."""
    began = time.monotonic()
    for seconds in lengths():
        answer = ask(state, host, "run_units", {"do": "stop", "units": units, "seconds": seconds}, "stop units")
        if "error" in answer or time.monotonic() - began > _STOP_TIMEOUT:
            fail(host, answer.get("error") or f"{answer['pending']} after {_STOP_TIMEOUT} s")
            return False
        if answer["done"]:
            return True
        say(host, f"waiting for {answer['pending']}, {time.monotonic() - began:.0f} s")
    return False


def start(state: State, host: Host, progress: Progress, number: int) -> bool:
    """Start this host's units of one step and stay until the step is up, here and on the hosts that ask its checks."""
    return _stay(state, host, progress, number, progress.steps[number].units.get(host.name, ()))


def wait(state: State, host: Host, progress: Progress, number: int) -> bool:
    """Stay until one step is up; starts nothing."""
    return _stay(state, host, progress, number, ())


def _stay(state: State, host: Host, progress: Progress, number: int, starting: tuple[str, ...]) -> bool:
    step = progress.steps[number]
    checks = [asdict(check) for check in step.checks if check.host == host.name]
    progress.begin()
    if checks:
        progress.asking.setdefault(number, set()).add(host.name)
    request: dict[str, Any] = {"do": "start" if starting else "wait", "start": starting, "checks": checks}
    for seconds in lengths():
        request |= {
            "units": _up_to(progress, host.name, number),
            "since": progress.since.get(host.name, {}),
            "seconds": min(seconds, max(1.0, progress.left)),
        }
        answer = _slice(state, host, progress, request, progress.up(number) if request.get("hold") else Event())
        if answer is None:
            if progress.failed.is_set():
                say(host, f"stopped waiting: {progress.failure}")
            return not progress.failed.is_set()
        if "error" in answer or answer["died"]:
            _died(host, progress, answer)
            return False
        progress.since[host.name] = answer["since"]
        if answer["done"] and _is_up(host, progress, number, step):
            return True
        # A host that only looks out leaves it to those that ask to say what is late.
        if progress.left < (0 if answer["pending"] else -_LONGEST):
            _late(host, progress, answer)
            return False
        _progress(host, progress, answer)
        # While others ask, this host only looks out for the death of its own ranks.
        request |= {"do": "wait", "hold": bool(answer["done"])}
    return False


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
    # A host that has not begun to ask may be waiting for this one's place in pyinfra's pool.
    return host.name in asking or passed >= asking or not asking <= progress.asking.get(number, set())


def _slice(
    state: State, host: Host, progress: Progress, request: Mapping[str, Any], up: Event
) -> programs.Answer | None:
    """Run one slice; None as soon as another host of the group has failed, or what is held for is up."""
    if progress.failed.is_set():
        return None
    session = gevent.spawn(ask, state, host, "run_units", request, "watch units", current_arguments(host))
    gevent.wait([session, progress.failed, up], count=1)
    if not session.ready():
        session.kill(block=False)
        return None
    answer: programs.Answer = session.get()
    return answer


def _progress(host: Host, progress: Progress, answer: programs.Answer) -> None:
    if not answer["pending"]:
        return
    text = f"waiting until {answer['pending']}, {progress.passed_seconds:.0f} s"
    last = next((line for line in answer["last"].values() if line), "")
    say(host, f"{text}; last log: {last[:_LOG_WIDTH]}" if last else text)


def _died(host: Host, progress: Progress, answer: programs.Answer) -> None:
    if "error" in answer:
        fail(host, answer["error"])
        progress.fail(f"{host.name}: {answer['error'].splitlines()[0]}")
        return
    first = next(iter(answer["died"]))
    for unit, words in answer["died"].items():
        fail(host, f"{unit} died; what it said:")
        for line in words:
            fail(host, f"  {line}")
        fail(host, f"  more: journalctl -u {unit}")
    progress.fail(f"{first} died on {host.name}")


def _late(host: Host, progress: Progress, answer: programs.Answer) -> None:
    fail(host, f"not ready after {progress.ready_timeout} s: waited until {answer['pending'] or 'others are up'}")
    for unit, line in answer["last"].items():
        fail(host, f"  {unit}: {line}")
    fail(host, "  fix: raise ready_timeout if the log shows progress, such as weights being loaded")
    progress.fail(f"{host.name} was not ready in time")
