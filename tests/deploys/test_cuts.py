"""A changing deploy killed at many moments: what is true then, what hosts do by themselves, what the same command does.

Prints the table. MUSTER_CUTS sets how many moments there are; MUSTER_CUTS_PART=2/5 takes every fifth from the second.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import astuple, dataclass

import pytest

from tests.deploys.conftest import HOSTS, GuardedTestbed
from tests.deploys.test_changes import leave_alone, phase, record

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

KILLS = int(os.environ.get("MUSTER_CUTS", "20"))
INTERRUPTS = max(1, KILLS // 4)
PART, PARTS = (int(word) for word in os.environ.get("MUSTER_CUTS_PART", "1/1").split("/"))


@dataclass(frozen=True)
class Row:
    """One cut.

    Args:
        second: after the start of the command.
        how: `killed` or `Ctrl-C`.
        phases: of the records, by host.
        serves: the group answered right after it.
        alone: what served after the hosts were left alone: `former`, `new`.
        status: exit status of the cut run; of a killed one -9.
        again: exit status of the same command.
    """

    second: float
    how: str
    phases: str
    serves: bool
    alone: str
    status: int
    again: int


def cut(testbed: GuardedTestbed, seats: int, after: float, how: signal.Signals) -> Row:
    """Cut a change, then do nothing, then run the same command."""
    child = testbed.start("kimi_k2_instruct", "-y", max_num_seqs=seats, supervisor="guard")
    time.sleep(after)
    child.send_signal(how)
    child.communicate(timeout=120)
    testbed.wait("the locks are free", lambda: not any(phase(testbed, name) for name in HOSTS), 60)
    records = [record(testbed, name) for name in HOSTS]
    serves = testbed.answers()

    def alone() -> bool:
        leave_alone(testbed)
        return testbed.answers()

    testbed.wait("the group comes back by itself", alone, 120)
    digest = testbed.status.get("digest")
    which = "new" if digest in [record["after"] for record in records if record] else "former"
    again = testbed.run("kimi_k2_instruct", "-y", max_num_seqs=seats)
    assert again.status == 0, again.text
    assert testbed.answers()
    assert not any(record(testbed, name) for name in HOSTS)
    phases = ", ".join(str(each.get("phase", "-")) for each in records)
    word = "Ctrl-C" if how == signal.SIGINT else "killed"
    return Row(round(after, 1), word, phases, serves, which, child.returncode, again.status)


def test_a_change_may_be_cut_at_any_moment(guarded: GuardedTestbed, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    guarded.deploy(max_num_seqs=40)
    whole = time.monotonic() - began
    cuts = [
        (how, whole * (number + 1) / (count + 2))
        for how, count in ((signal.SIGKILL, KILLS), (signal.SIGINT, INTERRUPTS))
        for number in range(count)
    ]
    rows = [cut(guarded, 41 + number, after, how) for number, (how, after) in enumerate(cuts[PART - 1 :: PARTS])]
    with capsys.disabled():
        print(f"\n| second of {whole:.0f} | cut | records | serves | left alone | exit status | the same command |")
        for row in rows:
            print("| " + " | ".join(str(value) for value in astuple(row)) + " |")
    assert {row.status for row in rows if row.how == "Ctrl-C"} <= {130, 0}
