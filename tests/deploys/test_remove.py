"""A way out: what a host had before muster came is what it has when muster has left, file by file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.sandbox import Sandbox
from tests import standin
from tests.conftest import Boot
from tests.deploys.conftest import GUARD_UNIT, HOSTS, Testbed
from tests.deploys.test_install import installs

pytestmark = pytest.mark.sandbox

PASSING = "|".join(
    (
        *("^/var/log/", "^/var/lib/systemd/", "^/var/tmp/", "^/tmp/", "^/root/"),
        r"^/etc/(passwd|shadow|group|gshadow)- ",
        r"^/etc/\.pwd\.lock",
        "muster-sandbox",
    )
)
"""The journal, systemd's own state, copies that the tools for users keep of their files, and the sandbox's own."""
TREE = (
    "find / -xdev -path /srv -prune -o -printf '%p %m %U:%G %y %l\\n';"
    " find /etc -xdev -type f ! -name '*-' -print0 | xargs -0 sha256sum;"
    " sysctl net.core.somaxconn vm.max_map_count; nft list tables;"
    " ls -d /run/muster* /run/systemd/system/muster* 2>/dev/null;"
    " systemctl list-units --all --plain --no-legend 'muster*'"
)


class RemoveTestbed(Testbed):
    """Hosts of two GPUs, of which each group takes one."""

    gpu = 0

    @property
    def inventory(self) -> str:  # type: ignore[override]
        return f"""\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = (
    [(_name, {{{{**_data, "gpus": 1, "gpu_devices": ["{self.gpu}"]}}}}) for _name, _data in _hosts({{name!r}})],
    {{settings!r}},
)
"""

    def tree(self, host: str) -> list[str]:
        """Return every file of a host with mode and owners, and whatever else muster touches."""
        return self.sh(host, f"({TREE}) | grep -Ev '{PASSING}' | sort").splitlines()

    def trees(self) -> dict[str, list[str]]:
        return {name: self.tree(name) for name in HOSTS}


def difference(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return what came and what went, on each host where anything did."""
    changed = {
        name: sorted({f"- {line}" for line in before[name]} - {f"- {line}" for line in after[name]})
        + sorted({f"+ {line}" for line in after[name]} - {f"+ {line}" for line in before[name]})
        for name in HOSTS
    }
    return {name: lines for name, lines in changed.items() if lines}


@pytest.fixture(scope="module")
def box(sandbox: Boot) -> Iterator[Sandbox]:
    there = sandbox("remove", 2, gpus=2)
    for name in HOSTS:
        standin.place(there.tree(name))
    yield there
    there.down()


@pytest.fixture
def hosts(box: Sandbox, tmp_path: Path) -> Iterator[RemoveTestbed]:
    """Hosts that never knew muster, and do not know it afterwards."""
    there = RemoveTestbed(box, tmp_path)
    yield there
    for name in HOSTS:
        box.start(name)


EVERYTHING = ("-y", "--data", "_everything=true")


def test_nothing_is_left_of_everything_but_the_journal(hosts: RemoveTestbed) -> None:
    given = {**installs(hosts), "supervisor": "guard"}
    before = hosts.trees()
    hosts.deploy(**given)
    assert hosts.answers()
    there = difference(before, hosts.trees())
    assert len(there["node1"]) > 100

    dry = hosts.run("remove", *EVERYTHING, "--dry", **given)
    assert dry.status == 0, dry.text
    assert "this will stop and remove:" in dry.err
    assert "/opt/muster/engines  " in dry.err
    assert hosts.answers()

    ran = hosts.run("remove", *EVERYTHING, **given)
    assert ran.status == 0, ran.text
    assert difference(before, hosts.trees()) == {}
    again = hosts.run("remove", *EVERYTHING, **given)
    assert again.status == 0, again.text
    assert "nothing of muster is on these hosts" in again.err


def test_one_group_leaves_the_other_serving_and_a_host_that_is_off_keeps_nobody(hosts: RemoveTestbed) -> None:
    guard = {"supervisor": "guard"}
    bare = hosts.trees()
    hosts.deploy(**guard)
    lives, before = {name: hosts.life(name, GUARD_UNIT) for name in HOSTS}, hosts.trees()

    hosts.gpu = 1
    second = {**guard, "group": "second", "port": 8010, "control_port": 29700, "rpc_port": 29560}
    hosts.deploy(**second)
    unnamed = hosts.run("remove", "-y", **guard)
    assert unnamed.status != 0
    assert "groups on these hosts: kimi-k2-instruct (kimi-k2-instruct), second (kimi-k2-instruct)" in unnamed.err
    ran = hosts.run("remove", "-y", **second)
    assert ran.status == 0, ran.text
    assert "the guards have stopped second" in ran.text
    changed = difference(before, hosts.trees())
    # No group's: notes of command lines that the parser has taken, and bytecode of the guard that root has asked.
    own = {line for lines in changed.values() for line in lines if not re.search("/accepted/|/__pycache__", line)}
    assert own == set()
    assert {name: hosts.life(name, GUARD_UNIT) for name in HOSTS} == lives
    assert hosts.answers()

    hosts.gpu = 0
    hosts.box.kill_power("node1")
    partly = hosts.run("remove", *EVERYTHING, **guard)
    assert partly.status != 0
    assert "node1 could not be reached: what muster made there stays" in partly.err
    assert "next: run the same command again when it answers" in partly.err
    assert difference({**bare, "node1": []}, {"node0": hosts.tree("node0"), "node1": []}) == {}
    hosts.box.start("node1")
    rest = hosts.run("remove", *EVERYTHING, **guard)
    assert rest.status == 0, rest.text
    assert difference(bare, hosts.trees()) == {}
