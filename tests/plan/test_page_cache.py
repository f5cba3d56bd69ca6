"""Which groups have their guards keep the weights in the page cache, and which files those are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muster.plan.types import Plan
from tests.sample_plans import plan

RECIPE = "kimi-k2-instruct"
HERE: dict[str, Any] = {"model": "/srv/m", "offline": True}


def kept(made: Plan) -> list[Any]:
    """Return what each host's guard is told."""
    path = f"/etc/muster/{RECIPE}/guard.json"
    return [json.loads(host.files[path].text).get("page_cache") for host in made.hosts.values()]


@pytest.mark.parametrize("executor", ["mp", "ray"])
def test_every_guard_keeps_the_directory_that_is_served(executor: str) -> None:
    assert kept(plan(RECIPE, 2, "H800", executor=executor, **HERE)) == [{"directory": "/srv/m"}] * 2


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {**HERE, "keep_page_cache": False},
        {**HERE, "keep_weights": True, "strategy": "dp-ep"},
        {**HERE, "extra_args": ["--load-format", "dummy"]},
        {**HERE, "extra_args": ["--load_format=dummy"], "executor": "ray"},
    ],
    ids=["downloaded", "off", "kept on the GPUs", "dummy", "dummy with Ray"],
)
def test_no_guard_keeps_what_no_engine_loads_from_there(settings: dict[str, Any]) -> None:
    assert kept(plan(RECIPE, 2, "H200", **settings)) == [None, None]


def test_plain_units_have_no_guard_for_it() -> None:
    made = plan(RECIPE, 2, "H800", supervisor="systemd", **HERE)
    assert not any("page_cache" in path for host in made.hosts.values() for path in host.files)
