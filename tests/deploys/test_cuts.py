"""A changing deploy on three hosts, cut at many moments: what is true then, what hosts do by themselves, what the same
command does.

Each cut prints its row of the table. MUSTER_CUTS sets how many kills there are, with a quarter as many Ctrl-C;
MUSTER_CUTS_PART=2/5 takes every fifth cut from the second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from muster.on_host import places
from muster.sandbox import Sandbox
from tests.deploys.conftest import GROUP, GuardedTestbed, guarded_group
from tests.deploys.test_changes import phase, record, wait_alone

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

KILLS = int(os.environ.get("MUSTER_CUTS", "20"))
PART, PARTS = (int(word) for word in os.environ.get("MUSTER_CUTS_PART", "1/1").split("/"))


@dataclass(frozen=True)
class Cut:
    """When and how a change is cut.

    Args:
        how: `SIGKILL`, or `SIGINT` for Ctrl-C.
        part: of the seconds that a whole change takes.
    """

    how: signal.Signals
    part: float

    @property
    def word(self) -> str:
        return "Ctrl-C" if self.how == signal.SIGINT else "killed"

    def __str__(self) -> str:
        return f"{self.word}-{self.part:.0%}"


CUTS = [
    Cut(how, number / (count + 2))
    for how, count in ((signal.SIGKILL, KILLS), (signal.SIGINT, max(1, KILLS // 4)))
    for number in range(1, count + 1)
][PART - 1 :: PARTS]


@dataclass
class Steady:
    """A group that serves between two cuts.

    Args:
        testbed: its hosts.
        seconds: that a change takes which nobody cuts, as last seen.
        seats: the setting of the last change; each one has another.
    """

    testbed: GuardedTestbed
    seconds: float
    seats: int = 40

    def change(self) -> subprocess.Popen[str]:
        """Start a change from what serves to something new."""
        self.seats += 1
        return self.testbed.start("kimi_k2_instruct", "-y", max_num_seqs=self.seats, supervisor="guard")


@pytest.fixture(scope="module")
def steady(three: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steady]:
    with guarded_group(three, tmp_path_factory.mktemp("cuts")) as testbed:
        began = time.monotonic()
        testbed.deploy(max_num_seqs=40)
        yield Steady(testbed, time.monotonic() - began)


def cut_off(steady: Steady, cut: Cut) -> tuple[str, subprocess.Popen[str]]:
    """Begin a change and cut it; return the digest of what served before, and the run that was cut.

    A change that has ended before its cut tells how long one takes now.
    """
    for _ in range(3):
        before, began, child = steady.testbed.status["digest"], time.monotonic(), steady.change()
        try:
            out, err = child.communicate(timeout=cut.part * steady.seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(cut.how)
            child.communicate(timeout=120)
            return before, child
        assert child.returncode == 0, out + err
        steady.seconds = time.monotonic() - began
    raise AssertionError("each change has ended before its cut")


def plans(testbed: GuardedTestbed) -> set[str]:
    """Return the digests of the plans whose files are in place."""
    shown = (testbed.sh(name, f"cat {places.config(GROUP)}/plan.json") for name in testbed.hosts)
    return {str(json.loads(plan)["digest"]) for plan in shown}


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_a_change_may_be_cut_at_any_moment(steady: Steady, cut: Cut, capsys: pytest.CaptureFixture[str]) -> None:
    testbed = steady.testbed
    if not testbed.answers() or any(record(testbed, name) for name in testbed.hosts):
        testbed.deploy()  # an earlier cut has failed
    before, child = cut_off(steady, cut)
    testbed.wait("the locks are free", lambda: not any(phase(testbed, name) for name in testbed.hosts), 60)
    records = [record(testbed, name) for name in testbed.hosts]
    serves = testbed.answers()
    told = json.loads(testbed.muster("status", "--format", "json").stdout)["change"]
    assert told.startswith("a change is unfinished: plan ") if any(records) else not told, told
    wait_alone(testbed)
    served = testbed.status["digest"]
    assert plans(testbed) == {served}
    assert served in {before, *(record["after"] for record in records if record)}
    row = (
        f"{cut.part:.0%}".replace("%", " %"),
        f"{cut.part * steady.seconds:.1f} of {steady.seconds:.0f} s",
        cut.word,
        ", ".join(dict.fromkeys(str(record.get("phase", "none")) for record in records)),
        "yes" if serves else "no",
        "former plan" if served == before else "new plan",
        "-" if cut.how == signal.SIGKILL else str(child.returncode),
    )
    began = time.monotonic()
    again = testbed.run("kimi_k2_instruct", "-y", max_num_seqs=steady.seats)
    assert again.status == 0, again.text
    if served == before and not any(records):
        steady.seconds = time.monotonic() - began  # a whole change, on a machine that may have other work by now
    assert testbed.answers()
    assert not any(record(testbed, name) for name in testbed.hosts)
    with capsys.disabled():
        print(f"\n| {' | '.join(row)} |", flush=True)
    # Before pyinfra has read config.py Python itself dies of the signal, which a shell shows as 130 too.
    assert child.returncode in ((-9,) if cut.how == signal.SIGKILL else (130, -signal.SIGINT))
