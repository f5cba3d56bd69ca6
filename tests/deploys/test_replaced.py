"""A host is replaced: the same command provisions it alone, and the group comes back as one new generation."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from muster.sandbox import serving_settings
from tests import guard_answers
from tests.conftest import Boot
from tests.deploys.conftest import GROUP, GUARD_UNIT, INDEX, GuardedTestbed, wheel

pytestmark = pytest.mark.sandbox

INVENTORY = """\
from muster.sandbox.as_inventory import hosts as _hosts
_all = dict(_hosts({{name!r}}))
hosts = ([("node0", _all["node0"]), ("node1", _all[{stands!r}])], {{settings!r}})
"""
"""Of three hosts the first and one more; the second one's name stays when another machine stands in for it."""


class Replaced(GuardedTestbed):
    """Engines that muster installs, so that it can be seen where it does."""

    inventory = INVENTORY.format(stands="node1")

    def run(self, deploy: str = "kimi_k2_instruct", *flags: str, **more: Any) -> Any:
        managed = {"engine_path": None, "index_url": "file:///srv/simple", "torch_backend": None}
        python = serving_settings.host_python(self.box.tree("node0"))
        return super().run(deploy, *flags, **{**managed, "python_version": python, **more})

    def furnish(self, host: str) -> None:
        """Give a fresh machine its package index: everywhere the same, as the release's hashes want it."""
        index = self.directory / "index"
        if not index.is_dir():
            wheel(index, "0.33.0")
        shutil.copytree(index, self.box.tree(host) / INDEX, dirs_exist_ok=True)

    def engines(self, host: str) -> str:
        """Every file of the installed engines, with its inode and times: another installation would change them."""
        return self.sh(host, "find /opt/muster/engines -type f -not -name '*.pyc' -printf '%p %i %T@ %C@\\n' | sort")

    def generations(self, host: str) -> list[str]:
        """The generations that have started on a host since its disk is there, oldest first."""
        lines = self.sh(host, f"journalctl -q -o cat -u {GUARD_UNIT} | grep '^muster: starting generation ' || true")
        return [line.split()[3] for line in lines.splitlines()]


@pytest.fixture(scope="module")
def replaced(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Replaced:
    there = Replaced(sandbox("replaced", 3), tmp_path_factory.mktemp("replaced"))
    for host in there.box.hosts:
        there.furnish(host.name)
    there.deploy()
    return there


def test_a_wiped_host_is_provisioned_alone_and_the_group_forms_once(replaced: Replaced) -> None:
    before, engines = replaced.generations("node0"), replaced.engines("node0")
    assert engines
    replaced.box.wipe("node1")
    replaced.furnish("node1")
    replaced.wait("the loss is seen", lambda: replaced.status.get("phase") == "gather")
    ran = replaced.deploy()
    assert "[node1] installing" in ran.text
    assert "[node0] installing" not in ran.text
    assert replaced.engines("node0") == engines
    new = replaced.generations("node0")[len(before) :]
    assert new == replaced.generations("node1") == [replaced.status["generation"]]
    assert replaced.status["ready"]
    assert replaced.answers()
    assert replaced.deploy("--json").results["totals"]["success"] == 0


@pytest.mark.nightly
def test_a_machine_with_another_address_takes_the_place_and_the_old_one_is_refused(replaced: Replaced) -> None:
    before, engines = replaced.generations("node0"), replaced.engines("node0")
    old = str(replaced.status["digest"])
    replaced.box.kill_power("node1")
    replaced.inventory = INVENTORY.format(stands="node2")  # type: ignore[misc]
    ran = replaced.deploy()
    assert "[node1] installing" in ran.text
    assert "[node0] installing" not in ran.text
    assert replaced.engines("node0") == engines
    new = replaced.generations("node0")[len(before) :]
    assert new == replaced.generations("node2") == [replaced.status["generation"]]
    address = replaced.box.hosts[2].address
    assert [member["address"] for member in replaced.status["members"]][1] == address
    assert replaced.status["digest"] != old
    assert replaced.answers()

    # The old machine comes back with its old plan: the head's firewall, which admits the hosts of the new plan alone,
    # keeps it out. It says so by the names of both and its plan, and nothing else happens.
    replaced.box.start("node1")

    def said() -> str:
        return str(guard_answers.ask(replaced.box, "node1", GROUP, "status").get("link_problem", ""))

    replaced.wait("the refusal", lambda: f"; node1 carries plan {old[:12]}; " in said())
    assert said().startswith("the head node0 does not answer at ")
    assert said().endswith("run the deploy on every host")
    assert replaced.generations("node0")[len(before) :] == new
    assert replaced.status["ready"]
    assert replaced.sh("node1", "pgrep -f '^VLLM::' || echo none") == "none"
