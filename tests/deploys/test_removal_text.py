"""What a removal says before it acts: paths with their bytes, hosts that are alike together, and what stays."""

from __future__ import annotations

from typing import Any

from muster.deploys.remove import plan_text, units_to_stop


def host(**more: Any) -> dict[str, Any]:
    return {
        "groups": {},
        "going": ["g"],
        "paths": {"/etc/muster/g": 4096},
        "kept": {},
        "units": [],
        "user": False,
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


def test_nothing_is_said_to_be_nothing() -> None:
    assert plan_text({}, everything=False) == ["nothing of this group is on these hosts"]


def test_templates_and_staged_units_are_not_stopped() -> None:
    units = [".muster-g.service.muster-new", "muster-firewall@.service", "muster-g.service"]
    assert units_to_stop(host(units=units)) == ("muster-g.service",)
