"""A group that cannot come up says so in half a minute, with the host and the reason, not after `ready_timeout`.

Seen on this project's own hosts: each block of a guard was an hour of waiting, and then the advice to wait longer.
"""

from __future__ import annotations

import time

import pytest

from muster.sandbox import Sandbox
from tests.conftest import Boot
from tests.deploys.conftest import GuardedTestbed

pytestmark = pytest.mark.sandbox
SQUATTER = "systemd-run --quiet --unit=squatter python3 -m http.server 8000"


@pytest.fixture(scope="module")
def box(sandbox: Boot) -> Sandbox:
    return sandbox("blocked", 2)


def test_a_taken_port_ends_the_bring_up_with_its_host(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> None:
    group = GuardedTestbed(box, tmp_path_factory.mktemp("blocked"))
    group.boot()
    group.deploy()
    group.done("stop")
    group.sh("node0", SQUATTER)
    try:
        group.wait("the port is taken", lambda: group.sh("node0", "ss -ltn | grep -c :8000 || true") == "1")
        began = time.monotonic()
        ran = group.run("resume", "-y", ready_timeout=600)
        assert ran.status != 0
        assert time.monotonic() - began < 400, "it waits for ready_timeout"
        assert "waiting does not help: node0: port 8000" in ran.err
        assert "stopped waiting: node0: port 8000" in ran.err  # the other host's last word
        assert ran.err.rstrip().splitlines()[-1].startswith("muster: node0: port 8000")
    finally:
        group.sh("node0", "systemctl stop squatter; systemctl reset-failed squatter 2>/dev/null || true")
    group.done("resume")
    assert group.answers()
