"""A roll of two groups and their edge, killed in each of its steps: what clients see, what is left, what the same
command does then.

Each cut prints its row of the table.
"""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass
from itertools import count

import pytest

from tests.deploys.test_changes import phase, record
from tests.edge.edged import Load
from tests.edge.rolled import GROUPS, LAYOUT, Rolled
from tests.faults.edge_matrix import by_key, misses

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

SEATS = count(50)
"""What a roll changes: another number each time."""


@dataclass(frozen=True)
class Cut:
    """When a roll is killed.

    Args:
        step: what it is doing then.
        line: of its output, with which that begins.
        time: how often that line has come by then.
        after: seconds after it.
        out: the group that the edge sends no new request then.
    """

    step: str
    line: str
    time: int = 1
    after: float = 0.0
    out: str = ""

    def __str__(self) -> str:
        return self.step.replace(" ", "-")


def _operation(step: str, name: str, time: int = 1, after: float = 0.0, out: str = "") -> Cut:
    return Cut(step, f"--> Starting operation: {name}", time, after, out)


_STAGE = "Files | units, configuration and secrets are staged"
_EXCHANGE = "Files | units and configuration are in place"
_OUT, _STOP, _START = "Edge | clients have gone", "Bring up | no rank of an older plan runs", "Bring up | guards up"
CUTS = [
    Cut("probing", "--> Preparing operation files"),
    _operation("taking the lock", "Change | nobody else changes the group"),
    _operation("staging", _STAGE),
    _operation("leaving the edge", _OUT, after=0.2),
    _operation("drained", "Change | every host has recorded the change as stopping", out="kimi-a"),
    _operation("stopping", _STOP, after=0.7, out="kimi-a"),
    _operation("stopped", "Change | every host has recorded the change as committing", out="kimi-a"),
    _operation("exchanging files", _EXCHANGE, out="kimi-a"),
    _operation("starting", _START, after=1.5, out="kimi-a"),
    _operation("verifying", "Verify | every rank answers", out="kimi-a"),
    _operation("ending the change", "Change | the change is finished", out="kimi-a"),
    _operation("coming back to the edge", "Edge | the edge sends requests again"),
    _operation("the second group: staging", _STAGE, 2),
    _operation("the second group: stopping", _STOP, 2, after=0.7, out="kimi-b"),
    _operation("the second group: starting", _START, 2, after=1.5, out="kimi-b"),
    _operation("the edge: writing its files", "Edge | HAProxy has accepted its configuration"),
    _operation("the edge: loading them", "Edge | HAProxy has accepted its configuration", after=0.25),
    _operation("the edge: loading the keys", "Edge | keys of clients are in effect"),
]


def cut_off(rolled: Rolled, cut: Cut, seats: int) -> list[str]:
    """Begin a roll, and kill it in a step; return the servers that the edge sent no new request then."""
    child = rolled.start("fleet", "-y", supervisor="guard", max_num_seqs=seats)
    hangs = threading.Timer(rolled.run_seconds, child.kill)
    hangs.start()
    said: list[str] = []
    try:
        for line in child.stderr:
            said.append(line)
            if sum(each.startswith(cut.line) for each in said) == cut.time:
                time.sleep(cut.after)
                break
        child.send_signal(signal.SIGSTOP)  # it goes no further while the edge is looked at
        held = rolled.held_out()
        assert child.poll() is None, "".join(said)
        return held
    finally:
        child.kill()
        child.communicate()
        hangs.cancel()


def groups_down(rolled: Rolled) -> list[str]:
    return [group for host, group in GROUPS.items() if not rolled.ready_at(host)]


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_roll_may_be_killed_in_any_step(
    rolled: Rolled, client: str, cut: Cut, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = by_key("control-killed")
    rolled.wait("both at the edge", rolled.all_up, 60)
    seats = next(SEATS)
    with Load(rolled, client, 4) as load:
        rolled.wait("load", lambda: load.counts["done"] > 4)
        held = cut_off(rolled, cut, seats)
        killed = time.monotonic()
        rolled.wait("the edge holds no group out", lambda: not rolled.held_out(), 60)
        back = time.monotonic() - killed
        rolled.wait("the locks are free", lambda: not any(phase(rolled, *each) for each in GROUPS.items()), 60)
        phases = [str(record(rolled, *each).get("phase", "none")) for each in GROUPS.items()]
        down, done = groups_down(rolled), load.counts["done"]
        rolled.wait("more load", lambda: load.counts["done"] > done + 8)
        began = time.monotonic()
        again = rolled.roll(max_num_seqs=seats)
        took = time.monotonic() - began
    row = (
        cut.step,
        ", ".join(held) or "none",
        f"{back:.1f} s",
        ", ".join(phases),
        ", ".join(down) or "none",
        f"{load.counts['done']}, {load.counts['refused']}, {load.counts['lost']}",
        f"{again.status} after {took:.0f} s",
    )
    with capsys.disabled():
        print(f"\n| {' | '.join(row)} |", flush=True)
    assert not cut.out or held == [f"{cut.out}_{LAYOUT.groups[cut.out][0]}"], held
    assert again.status == 0, again.text
    assert misses(fault, load.counts, open_there=2, back=back) == [], load.others("done")
    assert all(f"--max-num-seqs {seats}" in rolled.command_line(host) for host in GROUPS)
    assert not any(record(rolled, *each) for each in GROUPS.items())
    rolled.wait("both at the edge", rolled.all_up, 60)
    settled = rolled.roll("--dry", "--json", max_num_seqs=seats)
    assert (settled.status, settled.changes) == (0, {}), settled.text
