"""An edge on a host of its own before two groups: keys, refusals, and what clients see of faults."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import pytest

from muster.on_host import edge_places
from tests.conftest import Boot
from tests.deploys.conftest import Ran
from tests.edge.edged import HUNG, NAME, Edged, Layout, Load
from tests.edge.live import make_certificate
from tests.faults.edge_matrix import by_key, misses

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

EDGE, HEADS = "node2", ("node0", "node1")
LAYOUT = Layout({"kimi-a": ("node0",), "kimi-b": ("node1",)}, (EDGE,))
KEYS, COPY = (f"{edge_places.TREE}/{edge_places.OWN}/{name}" for name in (edge_places.KEYS, edge_places.KEYS_BEFORE))
FILES = "sha256sum /etc/haproxy/haproxy.cfg /etc/haproxy/muster/edge.pem"
"""What a deploy of the edge would change."""


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


def all_up(there: Edged) -> bool:
    return all(there.seen_by(EDGE, host)["status"] == "UP" for host in HEADS)


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
        f"muster: {by_key('model-of-nobody-key').refusal} 'kimi-k1'"
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
    before = edged.sh(EDGE, FILES)
    make_certificate(edged.directory / "late.pem", (NAME,), days=-1)
    place = str(edged.directory / "late.pem")
    ran = run(edged, edge_certificate_file=f"{place}.crt", edge_certificate_key_file=f"{place}.key", edge_silence=99)
    assert ran.status != 0
    assert by_key("certificate-expired").says(ran.text)
    assert edged.sh(EDGE, FILES) == before


def test_a_key_file_that_is_lost_or_torn_touches_nothing(edged: Edged) -> None:
    before = edged.sh(EDGE, FILES)
    whole = (edged.directory / "edge.pem.key").read_text()
    (edged.directory / "torn.key").write_text(whole[: len(whole) // 2])
    for name, row in (("lost.key", "key-file-lost"), ("torn.key", "key-file-torn")):
        ran = run(edged, edge_certificate_key_file=str(edged.directory / name), edge_silence=99)
        assert ran.status != 0
        assert by_key(row).says(ran.text), ran.text
    assert edged.sh(EDGE, FILES) == before


def test_a_key_file_that_is_torn_at_the_edge_is_written_again(edged: Edged, client: str) -> None:
    before = edged.sh(EDGE, FILES)
    with Load(edged, client, 4) as load:
        edged.wait("load", lambda: load.counts["done"] > 4)
        edged.sh(EDGE, "truncate --size=300 /etc/haproxy/muster/edge.pem")
        assert edged.sh(EDGE, FILES) != before
        ran = run(edged)
        done = load.counts["done"]
        edged.wait("more load", lambda: load.counts["done"] > done + 8)
    assert (ran.status, edged.sh(EDGE, FILES)) == (0, before), ran.text
    assert misses(by_key("key-file-torn-at-the-edge"), load.counts) == [], load.others("done")


def test_keys_whose_file_is_lost_or_torn_are_those_of_its_copy(edged: Edged, client: str) -> None:
    fault = by_key("keys-torn")
    with Load(edged, client, 4) as load:
        for harm in ("rm", "truncate --size=40"):
            names = {row["name"] for row in json.loads(edged.key("list", "--format", "json").stdout)}
            edged.sh(EDGE, f"{harm} {KEYS}")
            listed = edged.key("list", "--format", "json")
            assert fault.says(listed.stderr), listed.stderr
            assert {row["name"] for row in json.loads(listed.stdout)} == names
            assert edged.status_of(edged.new_key(f"after-{harm.split()[0]}"), EDGE) == 200
            assert not fault.says(edged.key("list").stderr)
    assert misses(fault, load.counts) == [], load.others("done")


def test_where_both_files_of_keys_are_torn_the_edge_goes_on_with_what_it_has(edged: Edged, client: str) -> None:
    fault = by_key("keys-torn-twice")
    edged.sh(EDGE, f"cp {KEYS} /root/keys; truncate --size=40 {KEYS} {COPY}")
    try:
        with Load(edged, client, 4) as load:
            made = edged.key("add", "never")
            edged.wait("load", lambda: load.counts["done"] > 4)
    finally:
        edged.sh(EDGE, f"cp /root/keys {KEYS}; rm /root/keys")
    assert (made.returncode != 0, made.stdout) == (True, "")
    assert fault.says(made.stderr), made.stderr
    assert misses(fault, load.counts) == [], load.others("done")
    assert "never" not in edged.key("list").stdout


def test_an_edge_that_reaches_no_control_port_is_refused(edged: Edged) -> None:
    before = edged.sh(EDGE, FILES)
    edged.box.deafen(EDGE, *HEADS)
    try:
        ran = run(edged, edge_silence=98)
    finally:
        edged.box.hear(EDGE)
    assert ran.status != 0
    assert by_key("edge-cut-off").says(ran.text), ran.text
    assert edged.sh(EDGE, FILES) == before
    edged.wait("both at the edge", lambda: all_up(edged), 60)


def test_a_control_port_that_an_edge_does_not_reach_is_named(edged: Edged, client: str) -> None:
    edged.box.deafen(EDGE, HEADS[0])
    try:
        ran = run(edged, edge_silence=400)
        assert edged.ask(client)[0] == "done"
    finally:
        edged.box.hear(EDGE)
    assert ran.status == 0, ran.text
    assert by_key("edge-cut-off-from-one").says(ran.text), ran.text
    edged.wait("both at the edge", lambda: all_up(edged), 60)


def test_an_edge_that_is_kept_out_is_named(edged: Edged) -> None:
    ran = run(edged, monitor_networks=[])
    assert ran.status != 0
    assert f"{EDGE} ({edged.box.hosts[2].address}) {by_key('edge-kept-out').refusal}" in ran.text


def test_a_killed_engine_costs_open_streams_alone_and_a_reload_nothing(edged: Edged, client: str) -> None:
    with Load(edged, client, 16) as load:
        edged.wait("load", lambda: load.counts["done"] > 16)
        assert run(edged, edge_silence=500).status == 0
        assert load.counts.keys() == {"done"}, load.outcomes
        edged.sh("node0", "pkill -KILL -f '[v]llm serve'")
        done = load.counts["done"]
        edged.wait("more load", lambda: load.counts["done"] > done + 64)
        edged.wait("ready", lambda: edged.ready_at("node0"))
        taken, ready = edged.taken("node0"), time.monotonic()
        edged.wait("requests at the engine that is back", lambda: edged.taken("node0") > taken, 60)
        back = time.monotonic() - ready
    print(load.counts, f"back after {back:.1f} s")
    assert misses(by_key("group-killed"), load.counts, open_there=8, back=back) == [], load.others("done")


def test_a_hung_engine_gets_no_new_request_once_its_guard_says_so(edged: Edged, client: str) -> None:
    edged.wait("both", lambda: all(edged.ready_at(host) for host in HEADS))
    with Load(edged, client, 16) as load:
        edged.wait("load", lambda: load.counts["done"] > 16)
        edged.sh("node0", "pkill -STOP -f '^VLLM::EngineCore'")
        edged.wait("the edge's word", lambda: edged.seen_by(EDGE, "node0")["status"].startswith("DOWN"), HUNG)
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
