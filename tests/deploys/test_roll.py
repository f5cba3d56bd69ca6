"""All groups of a fleet in one run: one after the other, none after the first that fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from muster.sandbox import Sandbox
from tests import guard_answers
from tests.deploys.conftest import GuardedTestbed, Ran

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

GROUPS = {"node0": "kimi-a", "node1": "kimi-b"}
FLEET = """\
from muster.sandbox.as_inventory import hosts as _hosts
_all, _settings = _hosts({name!r}), {{"recipe": "kimi-k2-instruct", **{settings!r}}}
a, b = (_all[:1], {{**_settings, "group": "kimi-a"}}), (_all[1:], {{**_settings, "group": "kimi-b"}})
"""


class Fleet(GuardedTestbed):
    """Two groups of one host each, with no edge."""

    inventory = FLEET

    def roll(self, *flags: str, **settings: Any) -> Ran:
        return self.run("fleet", "-y", *flags, **settings)

    def lives(self) -> dict[str, str]:
        return {host: self.life(host, f"muster-{group}.service") for host, group in GROUPS.items()}

    def phase(self, host: str) -> str:
        return str(guard_answers.group_status(self.box, host, GROUPS[host]).get("phase"))


@pytest.fixture(scope="module")
def fleet(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    there = Fleet(box, tmp_path_factory.mktemp("fleet"))
    there.boot()
    there.clear()
    yield there
    there.clear()


def test_the_first_group_that_fails_goes_back_and_ends_the_roll(fleet: Fleet) -> None:
    first = fleet.roll()
    assert first.status == 0, first.text
    assert [fleet.phase(host) for host in GROUPS] == ["running", "running"]
    again = fleet.roll("--dry", "--json")
    assert (again.status, again.changes) == (0, {}), again.text
    before = fleet.lives()
    with fleet.crashing("RuntimeError: no", only_with="--max-model-len 4096"):
        failed = fleet.roll(max_model_len=4096)
    assert failed.status == 1, failed.text
    assert "serves again after" in failed.text
    assert "; not touched: kimi-b; next: " in failed.text.splitlines()[-1]
    after = fleet.lives()
    assert after["node1"] == before["node1"]
    assert after["node0"] != before["node0"]
    assert [fleet.phase(host) for host in GROUPS] == ["running", "running"]


def test_what_speaks_against_any_group_is_said_before_the_first_is_touched(fleet: Fleet) -> None:
    refused = fleet.roll(engine_path="/opt/none")
    assert refused.status == 2, refused.text
    assert "a: " in refused.text
    assert "b: " in refused.text
    assert "no group was touched" in refused.text
