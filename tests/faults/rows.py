"""Carries one row of the matrix out on a running group, and measures it."""

from __future__ import annotations

import time

from tests.faults import scenes
from tests.faults.effects import EFFECTS, CannotRun
from tests.faults.group import HOSTS, Group, Late, Load
from tests.faults.matrix import Fault, Outcome
from tests.faults.sightings import engines, generations, gone_at, kept, lives, overlaps, started_at
from tests.faults.watch import everywhere

SLACK = 60.0
"""Seconds beyond a bound that are waited for, so that a miss is measured and not only noticed."""
QUIET = 6.0
"""Seconds that a group must have been ready before the next fault: its canaries and metrics have settled."""


def carry_out(group: Group, fault: Fault) -> Outcome:
    """One row, on a group that serves; leaves it serving when the group can."""
    group.until_ready()
    group.reset_budget()
    time.sleep(QUIET)
    group.watch.forget()
    outcome = Outcome(fault.key)
    try:
        if fault.scene:
            scenes.SCENES[fault.effect[0]](group, fault, outcome, *fault.effect[1:])
        else:
            recover(group, fault, outcome)
    except CannotRun as reason:
        outcome.not_run = str(reason)
    except Late as late:
        outcome.oracles["in time"] = str(late)
    outcome.sampled = round(group.watch.longest, 3)
    return outcome


def recover(group: Group, fault: Fault, outcome: Outcome) -> None:
    """A fault and its recovery: when it was noticed, when all was gone, when the next generation ran and answered."""
    before = [each for each in group.watch.alive if each.generation or each.is_guard]
    (old,) = generations(before)
    cursors = group.cursors()
    load = Load(group) if fault.load else None
    if load:
        time.sleep(3)
    begun = time.monotonic()
    undo = EFFECTS[fault.effect[0]](group, *fault.effect[1:])
    try:
        late = (fault.gone or 0) + SLACK
        group.wait("all of the old generation is gone", lambda: not _alive(group, old), late)
        group.wait("hold", lambda: time.monotonic() - begun >= fault.hold, fault.hold + 1)
    finally:
        if load:
            load.end()
        if undo:
            undo()
    origin = time.monotonic() if undo and fault.origin != "fault" else begun
    late = (fault.started or 0) + SLACK
    group.wait("a new generation", lambda: started_at(group.watch.seen, old, HOSTS, begun) is not None, late)
    answering = group.until_ready()
    seen, alive = group.watch.seen, [each for each in group.watch.alive if each.generation or each.is_guard]
    outcome.answering = answering - origin
    outcome.gone = _since(gone_at(seen, old), begun)
    noticed = _since(group.noticed_at(cursors), begun)
    # The journal's time is that of its daemon, which on a busy machine is behind.
    outcome.detected = noticed if noticed is None or outcome.gone is None else min(noticed, outcome.gone)
    if fault.gone_there is not None:
        outcome.gone_there = _since(gone_at(seen, old, fault.effect[1]), begun)
    outcome.started = _since(started_at(seen, old, HOSTS, begun), origin)
    outcome.oracles = {
        "all new": "; ".join(kept(before, alive)),
        "one generation": one_generation(group),
        "no overlap": "; ".join(overlaps(seen)[:3]),
        "one new life": many_lives(lives(seen, begun), fault),
        "each rank answers": "" if group.answers() else "a rank did not answer",
    }


def one_generation(group: Group) -> str:
    """What breaks: all living engine processes, in the unit or not, carry one generation, which is the head's."""
    carried = everywhere(group.box)
    generation = str(group.status().get("generation"))
    if all(names == {generation} for names in carried.values()):
        return ""
    return (
        f"the head runs {generation[:8]}, the hosts carry { {host: sorted(names) for host, names in carried.items()} }"
    )


def many_lives(names: list[str], fault: Fault) -> str:
    """What breaks: one restart, and no second one on the way. Where the fault lasts, a start meanwhile is in order."""
    if len(names) == 1 or fault.key == "data-path":
        return ""
    return f"{len(names)} generations began"


def _alive(group: Group, old: str) -> bool:
    return any(each.generation == old for each in engines(group.watch.alive))


def _since(at: float | None, origin: float) -> float | None:
    return None if at is None else at - origin
