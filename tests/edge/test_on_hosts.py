"""An edge on a host of its own before two groups: keys, refusals, and what clients see of faults."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import pytest

from tests.conftest import Boot
from tests.deploys.conftest import Ran
from tests.edge.edged import NAME, Edged, Layout, Load
from tests.edge.live import make_certificate

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

EDGE, HEADS = "node2", ("node0", "node1")
LAYOUT = Layout({"kimi-a": ("node0",), "kimi-b": ("node1",)}, (EDGE,))


@pytest.fixture(scope="module")
def edged(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Edged:
    there = Edged(sandbox("edge", 3), tmp_path_factory.mktemp("edged"), LAYOUT)
    there.bring_up()
    return there


@pytest.fixture(scope="module")
def client(edged: Edged) -> str:
    """A key without limits."""
    return edged.new_key("load")


def run(there: Edged, *flags: str, **settings: Any) -> Ran:
    return there.run("edge", "-y", *flags, **settings)


def test_a_second_run_changes_nothing(edged: Edged, client: str) -> None:
    again = run(edged, "--dry", "--json")
    assert (again.status, again.changes) == (0, {}), again.text


def test_a_key_is_in_effect_at_once_and_printed_once(edged: Edged) -> None:
    made = edged.key("add", "team", "--model", "kimi-k2", "--rate", "600", "--days", "1")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert edged.ask(key)[0] == "done"
    assert edged.ask("sk-wrong")[1].startswith("401")
    rows = json.loads(edged.key("list", "--format", "json").stdout)
    team = next(row for row in rows if row["name"] == "team")
    assert (team["requests"], team["rate"], team["models"]) == (1, 600, ["kimi-k2"])
    assert edged.key("add", "team").returncode == 2
    assert edged.key("add", "other", "--model", "kimi-k1").stderr.startswith(
        "muster: the edge: unknown model 'kimi-k1'"
    )
    assert edged.key("revoke", "team").returncode == 0
    assert edged.ask(key)[1].startswith("401")
    files = edged.sh(EDGE, "cat /etc/haproxy/muster/keys.* /etc/haproxy/haproxy.cfg; journalctl -u haproxy -o cat")
    assert key not in files
    assert "engine-secret" not in files


def test_operators_alone_read_metrics_and_the_fleets_page(edged: Edged) -> None:
    url = f"http://{edged.box.hosts[2].address}:8405"
    with urllib.request.urlopen(f"{url}/", timeout=10) as answer:
        page = answer.read().decode()
    for group in LAYOUT.groups:
        assert f">{group}</a>" in page
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        assert b"haproxy_server_status" in answer.read()
    # A host of a group is in no monitor_networks here: it gets no answer, not even to a connection.
    asked = edged.sh("node0", f"timeout 3 python3 -c 'import urllib.request as u; u.urlopen(\"{url}\")' 2>&1; echo $?")
    assert asked.splitlines()[-1] == "124", asked


def test_a_key_outlives_a_restart(edged: Edged, client: str) -> None:
    edged.sh(EDGE, "systemctl restart haproxy")
    edged.wait("a request", lambda: edged.ask(client)[0] == "done", 30)


def test_an_expired_certificate_touches_nothing(edged: Edged) -> None:
    before = edged.sh(EDGE, "sha256sum /etc/haproxy/haproxy.cfg /etc/haproxy/muster/edge.pem")
    make_certificate(edged.directory / "late.pem", (NAME,), days=-1)
    place = str(edged.directory / "late.pem")
    ran = run(edged, edge_certificate_file=f"{place}.crt", edge_certificate_key_file=f"{place}.key", edge_silence=99)
    assert ran.status != 0
    assert "expired on" in ran.text
    assert edged.sh(EDGE, "sha256sum /etc/haproxy/haproxy.cfg /etc/haproxy/muster/edge.pem") == before


def test_an_edge_that_is_kept_out_is_named(edged: Edged) -> None:
    ran = run(edged, monitor_networks=[])
    assert ran.status != 0
    assert f"{EDGE} ({edged.box.hosts[2].address}) is in no network of monitor_networks" in ran.text


def test_a_killed_engine_costs_open_streams_alone_and_a_reload_nothing(edged: Edged, client: str) -> None:
    with Load(edged, client, 16) as load:
        edged.wait("load", lambda: load.counts["done"] > 16)
        assert run(edged, edge_silence=500).status == 0
        assert load.counts.keys() == {"done"}, load.outcomes
        edged.sh("node0", "pkill -KILL -f '[v]llm serve'")
        done = load.counts["done"]
        edged.wait("more load", lambda: load.counts["done"] > done + 64)
        edged.wait("ready", lambda: edged.ready_at("node0"))
        taken = edged.taken("node0")
        edged.wait("requests at the engine that is back", lambda: edged.taken("node0") > taken, 30)
    assert load.counts["refused"] == 0, [each for each in load.outcomes if each[0] == "refused"]
    assert load.counts["lost"] <= 8, load.outcomes


def test_a_hung_engine_gets_no_new_request_once_its_guard_says_so(edged: Edged, client: str) -> None:
    edged.wait("both", lambda: all(edged.ready_at(host) for host in HEADS))
    with Load(edged, client, 16) as load:
        edged.wait("load", lambda: load.counts["done"] > 16)
        edged.sh("node0", "pkill -STOP -f '^VLLM::EngineCore'")
        edged.wait("the edge's word", lambda: edged.seen_by(EDGE, "node0")["status"].startswith("DOWN"), 60)
        first = last = edged.taken("node0")
        # A count is of the hung engine only where the guard still says so after it.
        for _ in range(600):
            now = edged.taken("node0")
            if edged.ready_at("node0"):
                break
            last = now
            time.sleep(0.2)
        assert last == first
        edged.wait("requests at the engine that is back", lambda: edged.taken("node0") > last, 30)
    assert load.counts["done"] > 16


def test_what_a_lost_group_leaves_too_much_of_waits_and_is_said(edged: Edged, client: str) -> None:
    edged.wait("both", lambda: all(edged.ready_at(host) for host in HEADS))
    assert run(edged, edge_max_requests=4).status == 0
    edged.sh("node0", "systemctl stop muster-kimi-a")
    try:
        edged.wait("the edge's word", lambda: edged.seen_by(EDGE, "node0")["status"].startswith("DOWN"), 60)
        with Load(edged, client, 10) as load:
            edged.wait("load", lambda: load.counts["done"] > 10)
            status = edged.command_of("status", "inventory.py", "--format", "json")
        said = json.loads(status.stdout)
        assert said["asked"]["kimi-k2"] > 4, status.stdout
        assert "without kimi-a the others run 4 at once" in said["shortages"][0]
        assert load.counts.keys() == {"done"}, load.others("done")
    finally:
        edged.sh("node0", "systemctl start muster-kimi-a")
    assert run(edged).status == 0
