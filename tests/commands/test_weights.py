"""What `muster weights status` says of hosts, and of the load that is to be expected."""

from __future__ import annotations

from typing import Any

from muster.commands.weights import status_lines
from muster.spec.listing import Entry, Listing
from tests.sample_plans import plan

LISTING = Listing("org/model", "d" * 40, "hub", (Entry("a.safetensors", 100, "1" * 64),))
PLAN = plan("kimi-k2-instruct", 2, "H200", model="/srv/m", offline=True, strategy="tp-pp")
RATE = {"one": 10**9, "all": 5 * 10**9, "readers": 8, "age": 60}


def probe(**loaders: float) -> dict[str, Any]:
    """Return what a complete host answers; of loaders GB a second."""
    found = {name: {"rate": int(rate * 1e9), "peak": 0} for name, rate in loaders.items()}
    kept = {"engine": PLAN.release.id, "ranks": PLAN.loaders.ranks.key, "age": 120, "loaders": found} if found else None
    state = {"complete": True, "good": 1, "wrong": {}, "free": 10**12, "link": "d" * 40}
    return {**state, "rate": RATE, "loaders": kept}


def test_the_load_by_the_loader_that_would_be_taken_is_said() -> None:
    lines = status_lines(LISTING, {"n0": probe(auto=5, instanttensor=20), "n1": probe(auto=4, instanttensor=25)}, PLAN)
    assert len(lines) == 3
    assert lines[2] == "a cold load by instanttensor: 52 s expected; auto 2 min (measured 2 min ago)"


def test_where_a_host_was_not_measured_the_disks_figure_stands_alone() -> None:
    lines = status_lines(LISTING, {"n0": probe(auto=5, instanttensor=20), "n1": probe()}, PLAN)
    assert len(lines) == 3
    assert "a cold load by" not in " ".join(lines)
    assert len(status_lines(LISTING, {"n0": probe(auto=5)}, None)) == 2
    older = {key: value for key, value in probe().items() if key != "loaders"}  # an earlier muster's answer
    assert len(status_lines(LISTING, {"n0": older}, PLAN)) == 2
