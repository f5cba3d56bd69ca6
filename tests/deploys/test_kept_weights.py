"""Weights that stay, on real hosts with the stand-in's daemons: what turns with the engine, and what without it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muster.on_host import places
from tests.deploys.conftest import GROUP, GUARD_UNIT, HOSTS, GuardedTestbed

pytestmark = pytest.mark.sandbox

WEIGHTS_UNIT = f"muster-{GROUP}-weights.service"
KEPT: dict[str, Any] = {"keep_weights": True}


def daemons(testbed: GuardedTestbed) -> dict[str, str]:
    """Return each host's daemons, by their process ids; "none" where there are none."""
    return {name: testbed.sh(name, "pgrep -f '^weight-cache-' | grep . || echo none") for name in testbed.hosts}


def kept(testbed: GuardedTestbed) -> dict[str, Any]:
    """Return what the guard of the head's daemons says of their group; empty where it does not."""
    program = f"$(sed -n 's/^ExecStart=//p' {places.unit(WEIGHTS_UNIT)} | cut -d' ' -f1-3)"
    said = testbed.sh(HOSTS[0], f"{program} ctl --config {places.weights_config(GROUP)} status 2>/dev/null || true")
    return dict(json.loads(said).get("group") or {}) if said else {}


def new_generation(testbed: GuardedTestbed, old: str) -> None:
    testbed.wait("a new generation serves", lambda: testbed.status.get("generation") not in ("", None, old))
    testbed.wait("the group is ready", testbed.ready)
    assert testbed.answers(rank=0)
    assert testbed.answers(rank=1)


def test_weights_stay_while_the_engine_turns(guarded: GuardedTestbed) -> None:
    guarded.deploy(**KEPT)
    held, first = daemons(guarded), guarded.status["generation"]
    assert "none" not in held.values()
    assert kept(guarded)["ready"] is True
    seen = json.loads(guarded.muster("status", "--format", "json").stdout)
    assert "weights are kept on the GPUs" in seen["weights"]
    assert [row["load_seconds"] for row in seen["hosts"]] == [
        0.5,
        0.5,
    ]  # the daemons'; mapping reads none
    # A crash of the engine, and a change that leaves the weights alone.
    guarded.sh("node1", "kill -9 $(pgrep -f -o '[v]llm serve')")
    new_generation(guarded, first)
    changed = guarded.deploy(**KEPT, max_num_seqs=8)
    assert "Nothing to do" not in changed.text
    assert "--max-num-seqs 8" in guarded.command_line("node1")
    assert daemons(guarded) == held
    # A lost daemon takes all others with it, and no engine: it serves what it has mapped.
    second = guarded.status["generation"]
    guarded.sh("node0", "pkill -9 -f '^weight-cache-0'")
    guarded.wait("all daemons are gone", lambda: set(daemons(guarded).values()) == {"none"}, 60)
    lacks = "weights are no longer kept"
    guarded.wait(
        "why", lambda: all(lacks in each["blocked"] for each in kept(guarded).get("members", [{"blocked": ""}]))
    )
    assert guarded.answers(rank=1)
    assert guarded.status["generation"] == second
    # They load once that engine ends.
    guarded.sh("node0", "kill -9 $(pgrep -f -o '[v]llm serve')")
    new_generation(guarded, second)
    reloaded = daemons(guarded)
    assert "none" not in reloaded.values()
    assert not {*reloaded.values()} & {*held.values()}


@pytest.mark.nightly
def test_a_stop_frees_the_gpus_and_another_key_loads_anew(guarded: GuardedTestbed) -> None:
    guarded.deploy(**KEPT)
    guarded.done("stop", **KEPT)
    guarded.wait("no daemon is left", lambda: set(daemons(guarded).values()) == {"none"}, 60)
    guarded.wait("why", lambda: kept(guarded).get("phase") == "stopped")
    guarded.done("resume", **KEPT)
    assert guarded.answers(rank=1)
    held = daemons(guarded)
    assert "none" not in held.values()
    guarded.deploy(**KEPT, extra_args=["--dtype", "float16"])
    assert guarded.answers(rank=1)
    assert "--dtype float16" in guarded.sh("node1", "tr '\\0' ' ' </proc/$(pgrep -f -o '[v]llm preload')/cmdline")
    assert not {*daemons(guarded).values()} & {*held.values(), "none"}
    # Off again: nothing of it is left.
    guarded.deploy()
    assert guarded.answers(rank=1)
    for name in guarded.hosts:
        assert (
            guarded.sh(name, f"ls {places.unit(WEIGHTS_UNIT)} {places.weights_config(GROUP)} 2>/dev/null || true") == ""
        )
        assert guarded.sh(name, f"systemctl is-active {WEIGHTS_UNIT} || true") == "inactive"
        assert guarded.sh(name, f"systemctl is-active {GUARD_UNIT}") == "active"
    assert set(daemons(guarded).values()) == {"none"}


@pytest.mark.nightly
def test_a_removal_takes_the_daemons_and_their_places(guarded: GuardedTestbed) -> None:
    guarded.deploy(**KEPT)
    guarded.done("remove", **KEPT)
    assert set(daemons(guarded).values()) == {"none"}
    own = " ".join(place for place in places.of_group(GROUP))
    for name in guarded.hosts:
        left = guarded.sh(
            name, f"ls -d {own} {places.unit(WEIGHTS_UNIT)} {places.unit(GUARD_UNIT)} 2>/dev/null || true"
        )
        assert left == ""
