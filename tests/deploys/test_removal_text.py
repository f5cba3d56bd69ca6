"""What a removal says before it acts: paths with their bytes, hosts that are alike together, and what stays."""

from __future__ import annotations

from typing import Any

import pytest

from muster.deploys.remove import begin_removal, plan_text, units_to_stop
from muster.errors import Refusal
from muster.plan.change import Change


def host(**more: Any) -> dict[str, Any]:
    return {
        "groups": {},
        "going": ["g"],
        "paths": {"/etc/muster/g": 4096},
        "kept": {},
        "units": [],
        "user": False,
        "changes": {"g": {"locked": False, "holder": {}, "record": {}, "installed": "aaa"}},
        **more,
    }


def test_hosts_that_are_alike_are_said_once() -> None:
    kept = {"/var/lib/muster/weights/org--model": ("weights stay", 1 << 40)}
    there = {"a": host(), "b": host(), "c": host(kept=kept, user=True)}
    assert plan_text(there, everything=True) == [
        "this will stop and remove:",
        "  on a, b: 8 KiB",
        "    /etc/muster/g  4 KiB",
        "  on c: 4 KiB",
        "    /etc/muster/g  4 KiB",
        "    user muster",
        "    stays: /var/lib/muster/weights/org--model (weights stay)",
    ]


def test_a_group_that_somebody_changes_is_not_removed() -> None:
    change = Change("1", "g", "deploy", "ann", "desk", "2026-11-26T12:03:11Z", "aaa", "bbb", "stopping")
    busy = {"locked": True, "holder": change.to_wire(), "record": {}, "installed": "aaa"}
    with pytest.raises(Refusal, match=r"b: ann@desk has been changing group g since 12:03:11 UTC"):
        begin_removal({"a": host(), "b": host(changes={"g": busy})})


def test_a_removal_is_one_change_of_the_groups_of_each_host() -> None:
    states = host()["changes"]
    there = {"a": host(), "b": host(going=["f", "g"], changes={"f": states["g"], **states}), "c": host(going=[])}
    change = begin_removal(there)
    assert change is not None
    assert (change.hosts, change.groups) == (("a", "b"), {"a": ("g",), "b": ("f", "g")})
    assert change.change.what == "removal of plan aaa"
    assert begin_removal({"c": host(going=[], changes={})}) is None


def test_nothing_is_said_to_be_nothing() -> None:
    assert plan_text({}, everything=False) == ["nothing of this group is on these hosts"]


def test_templates_and_staged_units_are_not_stopped() -> None:
    units = [".muster-g.service.muster-new", "muster-firewall@.service", "muster-g.service"]
    assert units_to_stop(host(units=units)) == ("muster-g.service",)
