"""Hosts of the oldest and the newest release there are packages for: systemd 247 with Python 3.9, 257 with 3.13."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.sandbox import Sandbox
from tests.conftest import Boot
from tests.deploys.conftest import GROUP, HOSTS, Testbed

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

GUARD = f"muster-{GROUP}.service"


@pytest.fixture(params=["bullseye", "trixie"])
def elsewhere(request: pytest.FixtureRequest, sandbox: Boot, tmp_path: Path) -> Iterator[Testbed]:
    """Two hosts of another release than this machine's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUSTER_SANDBOX_SUITE", request.param)
        box: Sandbox = sandbox(f"on-{request.param}", 2)
        there = Testbed(box, tmp_path)
        there.clear()
        yield there
        box.down()


def test_a_group_is_brought_up_left_alone_and_heals(elsewhere: Testbed) -> None:
    elsewhere.deploy(supervisor="guard")
    assert elsewhere.answers()
    assert elsewhere.deploy("--json", supervisor="guard").results["totals"]["success"] == 0
    for name in HOSTS:
        assert elsewhere.sh(name, f"systemd-analyze verify {GUARD} 2>&1") == ""
    before = {name: elsewhere.life(name, GUARD) for name in HOSTS}
    elsewhere.sh("node1", "pkill -KILL -f '[h]eadless'")
    elsewhere.wait("new lives", lambda: all(elsewhere.life(name, GUARD) != before[name] for name in HOSTS), 60)
    elsewhere.wait("an answer", elsewhere.answers, 60)
