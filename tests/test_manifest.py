"""The manifest tells enough of a group to stop, restart and find it without its recipe."""

from __future__ import annotations

import json

from muster import manifest
from tests import fleet


def test_the_manifest_brings_back_the_bring_up() -> None:
    plan = manifest.with_manifest(fleet.plan("kimi-k2-instruct", 2, "H800"))
    for name, host in plan.hosts.items():
        told = json.loads(host.files[manifest.path(plan.group)].text)
        assert manifest.steps(told) == plan.steps
        assert told["host"] == name
        assert told["units"] == list(host.units)
        assert told["ports"] == list(host.ports)
        assert told["hosts"] == {other: list(plan.hosts[other].units) for other in plan.hosts}
        assert told["digest"] == plan.digest


def test_the_manifest_changes_no_other_file() -> None:
    plan = fleet.plan("kimi-k2-instruct", 2, "H800")
    more = manifest.with_manifest(plan)
    for name, host in plan.hosts.items():
        kept = {path: file for path, file in host.files.items() if path != manifest.path(plan.group)}
        assert kept.items() <= more.hosts[name].files.items()
