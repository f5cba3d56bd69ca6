"""Two edges before two groups of two hosts: keys, an edge that ends, a group that goes, what a stranger reaches.

Each edge is on the second host of a group. Clients ask one edge, and the other where they get no connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.conftest import Boot
from tests.edge.edged import HUNG, Edged, Layout, Load
from tests.edge.open_ports import open_ports, stranger
from tests.faults.edge_matrix import by_key, misses

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

HEADS, EDGES = ("node0", "node2"), ("node1", "node3")
LAYOUT = Layout({"kimi-a": ("node0", "node1"), "kimi-b": ("node2", "node3")}, EDGES)
HOLD = "/run/systemd/system/haproxy.service.d"
"""Where a drop-in keeps systemd from starting HAProxy again."""


@pytest.fixture(scope="module")
def edged(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Edged:
    there = Edged(sandbox("edges", 4), tmp_path_factory.mktemp("edges"), LAYOUT)
    there.bring_up()
    return there


@pytest.fixture(scope="module")
def client(edged: Edged) -> str:
    """A key without limits, at both edges."""
    return edged.new_key("load")


def took(edged: Edged, what: str, holds: Callable[[], bool], seconds: float = 120) -> float:
    """Wait until something holds, and say how long that was: a figure, not a judgement."""
    began = time.monotonic()
    edged.wait(what, holds, seconds)
    print(f"{what}: {time.monotonic() - began:.1f} s")
    return time.monotonic() - began


def both_ready(edged: Edged) -> None:
    edged.wait("both groups ready", lambda: all(edged.ready_at(host) for host in HEADS))


def test_a_second_run_changes_neither(edged: Edged, client: str) -> None:
    again = edged.run("edge", "-y", "--dry", "--json")
    assert (again.status, again.changes) == (0, {}), again.text


def test_a_key_comes_and_goes_at_both(edged: Edged) -> None:
    key = edged.new_key("team")
    assert [edged.status_of(key, edge) for edge in EDGES] == [200, 200]
    assert edged.key("revoke", "team").returncode == 0
    assert [edged.status_of(key, edge) for edge in EDGES] == [401, 401]


def test_a_stranger_reaches_edge_and_ssh_alone(edged: Edged) -> None:
    both_ready(edged)
    with stranger(edged.box) as space:
        found = {host: open_ports(space, edged.address(host)) for host in edged.hosts}
    print(found)
    assert found == {host: [22, 443] if host in EDGES else [22] for host in edged.hosts}


def test_one_edge_ends_and_the_other_goes_on(edged: Edged, client: str) -> None:
    killed, other = EDGES
    edged.sh(killed, f"mkdir -p {HOLD}; printf '[Service]\\nRestart=no\\n' >{HOLD}/hold.conf; systemctl daemon-reload")
    with Load(edged, client, 16, EDGES) as load, Load(edged, client, 4, [other]) as steady:
        edged.wait("load", lambda: load.counts["done"] > 16)
        edged.sh(killed, "systemctl kill --signal=KILL haproxy")
        done = load.counts["done"]
        edged.wait("requests at the other", lambda: load.counts["done"] > done + 48)
    edged.sh(killed, f"rm -r {HOLD}; systemctl daemon-reload; systemctl start haproxy")
    print(load.counts, steady.counts)
    assert steady.counts.keys() == {"done"}, steady.others("done")
    # What was under way at the edge that was killed is lost, asked again it is answered: half of the clients ask there.
    open_there = {"done": load.counts["done"], "lost": sum(load.counts.values()) - load.counts["done"]}
    assert misses(by_key("edge-killed"), open_there, open_there=8) == [], load.others("done")
    assert edged.status_of(client, killed) == 200


def test_both_edges_end_and_come_back_with_their_keys(edged: Edged, client: str) -> None:
    with Load(edged, client, 8, EDGES) as load:
        edged.wait("load", lambda: load.counts["done"] > 8)
        for edge in EDGES:
            edged.sh(edge, "systemctl kill --signal=KILL haproxy")
        done = load.counts["done"]
        back = took(edged, "requests after both edges were killed", lambda: load.counts["done"] > done + 16)
    print(load.counts)
    assert misses(by_key("edges-killed"), load.counts, back=back) == []
    assert edged.key("list").returncode == 0


def test_a_hung_engine_is_left_and_taken_back(edged: Edged, client: str) -> None:
    both_ready(edged)
    with Load(edged, client, 8, EDGES) as load:
        edged.wait("load", lambda: load.counts["done"] > 8)
        edged.sh("node0", "pkill -STOP -f '^VLLM::EngineCore'")
        edged.wait("the guard's word", lambda: not edged.ready_at("node0"), HUNG)
        told = time.monotonic()
        before, last = edged.taken("node0"), told
        for _ in range(600):
            now = edged.taken("node0")
            asked = time.monotonic()
            if edged.ready_at("node0"):
                break
            if now != before:
                before, last = now, asked
            time.sleep(0.1)
        print(f"last request of a hung engine: {last - told:.1f} s after /ready had turned")
        back = took(edged, "a request after /ready is back", lambda: edged.taken("node0") > before, 60)
    print(load.counts)
    hung = misses(by_key("group-hung"), load.counts, open_there=4, left=last - told, back=back)
    assert hung == [], load.others("done")


def test_a_group_that_the_edges_alone_do_not_reach_is_left(edged: Edged, client: str) -> None:
    both_ready(edged)
    with Load(edged, client, 8, EDGES) as load:
        edged.wait("load", lambda: load.counts["done"] > 8)
        # Of the group of node2, node3 is a member: its edge hears its own head.
        edged.box.deafen("node2", "node1")
        try:
            done, began = load.counts["done"], edged.taken("node2", "node3")
            edged.wait("more load", lambda: load.counts["done"] > done + 48)
            assert edged.ready_at("node2")
            edged.wait("the other edge goes on with it", lambda: edged.taken("node2", "node3") > began)
        finally:
            edged.box.hear("node2")
        taken = edged.taken("node2", "node1")
        back = took(edged, "a request after the partition", lambda: edged.taken("node2", "node1") > taken, 60)
    print(load.counts)
    cut_off = misses(by_key("group-partitioned"), load.counts, open_there=4, back=back)
    assert cut_off == [], load.others("done")


def test_the_power_of_a_head_goes(edged: Edged, client: str) -> None:
    both_ready(edged)
    with Load(edged, client, 16, EDGES) as load:
        edged.wait("load", lambda: load.counts["done"] > 16)
        edged.box.kill_power("node2")
        gone = time.monotonic()
        # Nothing closes what was open there; only that host's silence ends it.
        left = took(edged, "no client waits for the host any more", lambda: load.all_asked_since(gone))
        edged.box.start("node2")
        took(edged, "the group is ready again", lambda: edged.ready_at("node2"), 180)
        taken = edged.taken("node2")
        edged.wait("its requests", lambda: edged.taken("node2") > taken, 60)
    print(load.counts)
    assert misses(by_key("group-powerless"), load.counts, open_there=8, left=left) == [], load.others("done")


def test_heads_that_move_are_followed_by_both_edges(edged: Edged, client: str) -> None:
    both_ready(edged)
    moved = Layout({"kimi-a": ("node1", "node0"), "kimi-b": ("node3", "node2")}, EDGES)
    # No engine hangs here: a machine that is busy must not pass for one that does.
    settings = {"port": 8001, "stall_timeout": 60, "canary_idle": 30}
    try:
        with Load(edged, client, 8, EDGES) as load:
            edged.wait("load", lambda: load.counts["done"] > 8)
            edged.inventory = moved.whole
            ran = edged.run("fleet", "-y", **settings)
            done = load.counts["done"]
            edged.wait("more load", lambda: load.counts["done"] > done + 16)
        print(load.counts)
        assert ran.status == 0, ran.text
        assert load.counts.keys() == {"done"}, (load.others("done"), ran.text)
        for edge in EDGES:
            at = {name: (row["addr"], row["status"]) for name, row in edged.servers_at(edge).items()}
            heads = {"kimi-a_node1": "node1", "kimi-b_node3": "node3"}
            assert at == {name: (f"{edged.address(host)}:8001", "UP") for name, host in heads.items()}
    finally:
        edged.inventory = LAYOUT.whole
        back = edged.run("fleet", "-y")
    assert back.status == 0, back.text


def test_an_edge_that_was_off_gets_what_it_missed_with_the_next_change(edged: Edged, client: str) -> None:
    off, other = EDGES
    missed = edged.new_key("missed")
    edged.box.kill_power(off)
    try:
        ran = edged.key("revoke", "missed")
        assert (ran.returncode, off in ran.stderr) == (1, True), ran.stderr
        assert by_key("edge-powerless").says(ran.stderr), ran.stderr
        assert edged.status_of(missed, other) == 401
    finally:
        edged.box.start(off)
    edged.wait("the edge is back", lambda: edged.sh(off, "systemctl is-active haproxy || true") == "active")
    assert edged.key("list").returncode == 1
    edged.new_key("next")
    assert [edged.status_of(missed, edge) for edge in EDGES] == [401, 401]
    assert edged.key("list").returncode == 0
