"""The manifests tell enough of a group to stop, restart and find it without its recipe."""

from __future__ import annotations

import dataclasses
import json

import pytest

from muster.plan import manifest
from tests import sample_plans


@pytest.mark.parametrize("gpu", ["H800", "H200"])
def test_the_manifests_of_all_hosts_bring_back_the_bring_up(gpu: str) -> None:
    plan = sample_plans.plain("kimi-k2-instruct", 3, gpu)
    told = {name: json.loads(host.files[manifest.path(plan.group)].text) for name, host in plan.hosts.items()}
    # `order` is for the plan's readers: a manifest tells the units of a host, which are what a bring-up starts.
    assert manifest.steps(told) == tuple(dataclasses.replace(step, order=()) for step in plan.steps)
    for name, host in plan.hosts.items():
        assert told[name]["host"] == name
        assert told[name]["units"] == list(host.units)
        assert told[name]["ports"] == list(host.ports)
        assert told[name]["digest"] == plan.digest
        assert told[name]["hosts"] == 3


def test_a_manifest_does_not_grow_with_the_group() -> None:
    def size(hosts: int) -> int:
        plan = sample_plans.plain("kimi-k2-instruct", hosts, "H200")
        return len(list(plan.hosts.values())[-1].files[manifest.path(plan.group)].text)

    assert size(40) - size(4) < 20
