"""The digest is that of one JSON text, whatever way it is come by."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from muster.on_host.whole_files import text_sha256
from muster.plan.plan_digest import digest_of
from muster.plan.restart_decision import is_base
from muster.plan.types import Plan
from tests.sample_plans import plan


@pytest.mark.parametrize("strategy", ["tp-pp", "dp-ep"])
def test_the_digest_is_that_of_the_whole_plan_as_json(strategy: str) -> None:
    made = plan("kimi-k2-instruct", 2, "H200", strategy=strategy)
    assert digest_of(made.release.id, made.hosts) == text_sha256(as_json(made))[:16]


def as_json(made: Plan) -> str:
    """Return what is hashed, made the plain way: all of it but the firewall, the plan's own words and base files."""
    content = {name: asdict(host) for name, host in made.hosts.items()}
    for host in content.values():
        host["files"] = {path: file for path, file in host["files"].items() if not is_base(path)}
        host["processes"] = [{**process, "decided": ()} for process in host["processes"]]
        del host["firewall"], host["weights"], host["beside"]
    return json.dumps([made.release.id, content], sort_keys=True)
