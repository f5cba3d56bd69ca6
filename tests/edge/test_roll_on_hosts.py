"""A fleet behind its edge is changed under clients: no new request is refused, and no end of the run leaves a gap."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.edge.edged import Load
from tests.edge.rolled import EDGE, GROUPS, Rolled
from tests.faults.edge_matrix import by_key, misses

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

OTHER_PORTS = {"port": 8001, "control_port": 29601}


def test_a_setting_is_rolled_out_under_clients_and_a_second_run_changes_nothing(rolled: Rolled, client: str) -> None:
    before = rolled.lives()
    with Load(rolled, client, 8) as load:
        rolled.wait("load", lambda: load.counts["done"] > 16)
        ran = rolled.roll(max_num_seqs=40)
        done = load.counts["done"]
        rolled.wait("more load", lambda: load.counts["done"] > done + 16)
    assert ran.status == 0, ran.text
    assert "are cut" not in ran.text
    assert "alone serves" not in ran.text
    journals = {host: rolled.sh(host, "journalctl -o cat -n 60 -u 'muster-*'") for host in GROUPS}
    assert load.counts.keys() == {"done"}, (load.others("done"), ran.text, journals)
    after = rolled.lives()
    assert all(after[host] != before[host] for host in GROUPS)
    assert all("--max-num-seqs 40" in rolled.command_line(host) for host in GROUPS)
    assert rolled.all_up()
    again = rolled.roll("--dry", "--json", max_num_seqs=40)
    assert (again.status, again.changes) == (0, {}), again.text


def test_a_changed_group_must_pass_the_gate_before_the_next_one(rolled: Rolled, client: str) -> None:
    settled = rolled.roll(max_num_seqs=40)
    assert settled.status == 0, settled.text
    before = rolled.lives()
    unknown = rolled.roll("--data", "_gate=20200101T", max_num_seqs=40, max_num_batched_tokens=2048)
    assert (unknown.status, rolled.lives()) == (2, before), unknown.text
    assert "no baseline '20200101T'" in unknown.text
    kept = rolled.roll("--dry", max_num_seqs=40)
    assert kept.status == 0, kept.text
    measured = rolled.command_of("bench", "inventory.py", "--group", "kimi-a")
    assert measured.returncode == 0, measured.stdout + measured.stderr
    with Load(rolled, client, 4) as load:
        passed = rolled.roll("--data", "_gate=ledger", max_num_seqs=41)
        assert passed.status == 0, passed.text
        good = rolled.lives()
        assert all(good[host] != before[host] for host in GROUPS)
        rolled.measures("node0", share=0.8)
        failed = rolled.roll("--data", "_gate=ledger", max_num_seqs=39)
    assert failed.status == 1, failed.text
    last = failed.text.splitlines()[-1]
    assert "kimi-a does not pass the gate: WORSE" in last
    assert "not touched: kimi-b, the edge" in last
    assert load.counts.keys() == {"done"}, (load.others("done"), failed.text)
    assert rolled.lives()["node1"] == good["node1"]
    assert "--max-num-seqs 41" in rolled.command_line("node0")
    rolled.wait("both at the edge", rolled.all_up, 60)


def test_a_changed_group_must_answer_as_well_before_the_next_one(rolled: Rolled, client: str) -> None:
    before = rolled.lives()
    (rolled.directory / "scores").mkdir()
    refused = rolled.roll("--data", "_gate_eval=scores", max_num_seqs=44)
    assert (refused.status, rolled.lives()) == (2, before), refused.text
    assert "'scores' has no completed run of kimi-k2-instruct's gsm8k" in refused.text
    assert "muster eval INVENTORY --group kimi-a" in refused.text
    settled = rolled.roll(max_num_seqs=41)
    assert settled.status == 0, settled.text
    before = rolled.lives()
    words = ("--group", "kimi-a", "--limit", "100", "--ledger", "scores")
    evaluated = rolled.command_of("eval", "inventory.py", *words)
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    assert "gsm8k exact_match (strict): 0.9400 ± 0.0468 (95 %, 100 questions)" in evaluated.stdout
    with Load(rolled, client, 4) as load:
        given = ("--gate-eval", "scores", "--data", "max_num_seqs=44", "-y")
        passed = rolled.command_of("deploy", "inventory.py", *given)
        assert passed.returncode == 0, passed.stderr
        good = rolled.lives()
        assert all(good[host] != before[host] for host in GROUPS)
        ends = {"0.80": "WORSE gsm8k, 5 examples, 100 questions gsm8k exact_match", "cut": "lm_eval ended with 1"}
        for right, why in ends.items():
            rolled.scores("node0", right)
            failed = rolled.roll("--data", "_gate_eval=scores", max_num_seqs=39)
            assert failed.status == 1, failed.text
            last = failed.text.splitlines()[-1]
            assert "kimi-a does not pass the gate: " in last
            assert why in last
            assert "not touched: kimi-b, the edge" in last
            assert "--max-num-seqs 44" in rolled.command_line("node0")
    assert load.counts.keys() == {"done"}, (load.others("done"), failed.text)
    assert rolled.lives()["node1"] == good["node1"]
    kept = [json.loads(path.read_text()) for path in sorted((rolled.directory / "ledger").glob("*-eval-*.json"))]
    assert [entry["figures"].get("gsm8k exact_match (strict)") for entry in kept] == [0.94, 0.94, 0.8, None]
    rolled.scores("node0")
    rolled.wait("both at the edge", rolled.all_up, 60)


def test_the_first_group_that_fails_is_back_in_the_edge(rolled: Rolled, client: str) -> None:
    before = rolled.lives()
    with (
        rolled.crashing("RuntimeError: no", hosts=tuple(GROUPS), only_with="--max-num-seqs 31"),
        Load(rolled, client, 4) as load,
    ):
        ran = rolled.roll(max_num_seqs=31)
    assert ran.status == 1, ran.text
    assert "not touched: kimi-b, the edge" in ran.text.splitlines()[-1]
    assert load.counts.keys() == {"done"}, [each for each in load.outcomes if each[0] != "done"]
    assert rolled.lives()["node1"] == before["node1"]
    rolled.wait("both at the edge", rolled.all_up, 60)


def test_a_control_machine_that_is_killed_leaves_no_group_out(rolled: Rolled, client: str) -> None:
    with Load(rolled, client, 4) as load:
        child = rolled.start("fleet", "-y", supervisor="guard", max_num_seqs=42)
        rolled.wait("a group that is out", lambda: "DRAIN" in rolled.states().values(), 120)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        rolled.wait("no group that is out", lambda: "DRAIN" not in rolled.states().values(), 60)
        ran = rolled.roll(max_num_seqs=42)
    assert ran.status == 0, ran.text
    assert load.counts["refused"] == 0, [each for each in load.outcomes if each[0] == "refused"]
    assert all("--max-num-seqs 42" in rolled.command_line(host) for host in GROUPS)
    rolled.wait("both at the edge", rolled.all_up, 60)


def test_what_nobody_holds_out_any_more_comes_back_with_the_next_run(rolled: Rolled) -> None:
    server = next(name for name in rolled.states() if name.endswith("_node1"))
    rolled.ask_haproxy(EDGE, f"set server {rolled.backend()}/{server} state drain")
    assert rolled.states()[server].startswith("DRAIN")
    ran = rolled.roll(max_num_seqs=42)
    assert ran.status == 0, ran.text
    rolled.wait("both at the edge", rolled.all_up, 60)


def test_one_group_of_a_fleet_is_changed_alone(rolled: Rolled) -> None:
    before = rolled.lives()
    ran = rolled.command_of("deploy", "inventory.py", "--group", "kimi-b", "--data", "max_num_seqs=43", "-y")
    assert ran.returncode == 0, ran.stderr
    after = rolled.lives()
    assert after["node0"] == before["node0"]
    assert after["node1"] != before["node1"]
    rolled.wait("both at the edge", rolled.all_up, 60)


def test_one_group_of_a_fleet_is_stopped_and_started_and_no_other_host_is_asked(rolled: Rolled, client: str) -> None:
    before, cursor = rolled.lives(), rolled.box.journal_cursor("node1")
    unnamed = rolled.command_of("stop", "inventory.py", "-y")
    assert unnamed.returncode == 2
    assert "inventory.py has several groups: kimi-a (kimi-k2-instruct), kimi-b" in unnamed.stderr
    with Load(rolled, client, 8) as load:
        rolled.wait("load", lambda: load.counts["done"] > 16)
        stopped = rolled.command_of("stop", "inventory.py", "--group", "kimi-a", "-y")
        done = load.counts["done"]
        rolled.wait("more load", lambda: load.counts["done"] > done + 16)
        assert stopped.returncode == 0, stopped.stderr
        assert stopped.stderr.splitlines()[-1].endswith("until muster resume inventory.py --group kimi-a")
        dry = rolled.command_of("stop", "inventory.py", "--group", "kimi-b", "--dry")
        assert f"kimi-b alone serves kimi-k2 at {EDGE}: nothing answers for it until it is back" in dry.stderr
        cursor = rolled.box.journal_cursor("node1")
        history = rolled.command_of("history", "inventory.py", "--group", "kimi-a", "--format", "json")
        assert (history.returncode, json.loads(history.stdout)["group"]) == (0, "kimi-a"), history.stderr
        resumed = rolled.command_of("resume", "inventory.py", "--group", "kimi-a")
        assert resumed.returncode == 0, resumed.stderr
        assert rolled.box.ssh_sessions("node1", since=cursor) == []
    assert misses(by_key("group-stopped"), load.counts) == [], load.others("done")
    after = rolled.lives()
    assert (after["node0"] != before["node0"], after["node1"]) == (True, before["node1"])
    rolled.wait("both at the edge", rolled.all_up, 60)


def test_pyinfras_own_command_acts_on_one_group_and_loses_nothing(rolled: Rolled, client: str) -> None:
    before = rolled.lives()
    with Load(rolled, client, 8) as load:
        rolled.wait("load", lambda: load.counts["done"] > 16)
        back = rolled.run("rollback", "-y", "--data", "group=kimi-b", "--limit", "kimi_b", "--limit", "edge")
        assert back.status == 0, back.text
        again = rolled.run("restart", "-y", "--data", "group=kimi-b")
        assert again.status == 0, again.text
    assert "are cut" not in back.text + again.text
    assert load.counts.keys() == {"done"}, (load.others("done"), back.text, again.text)
    after = rolled.lives()
    assert (after["node0"], after["node1"] != before["node1"]) == (before["node0"], True)
    rolled.wait("both at the edge", rolled.all_up, 60)


def test_an_edge_that_would_find_no_group_any_more_is_named_before(rolled: Rolled) -> None:
    before = rolled.lives()
    without = rolled.roll("--limit", "kimi_a", "--limit", "kimi_b", **OTHER_PORTS)
    assert (without.status, rolled.lives()) == (2, before), without.text
    assert f"other addresses once it is changed, and {EDGE} gave no answer over SSH" in without.text


def test_the_edge_follows_other_ports_within_the_roll(rolled: Rolled, client: str) -> None:
    settled = rolled.roll()
    assert settled.status == 0, settled.text
    before = rolled.lives()
    with Load(rolled, client, 8) as load:
        rolled.wait("load", lambda: load.counts["done"] > 16)
        ran = rolled.roll(**OTHER_PORTS)
        done = load.counts["done"]
        rolled.wait("more load", lambda: load.counts["done"] > done + 16)
    assert ran.status == 0, ran.text
    assert load.counts.keys() == {"done"}, (load.others("done"), ran.text)
    after = rolled.lives()
    assert all(after[host] != before[host] for host in GROUPS)
    assert rolled.ports() == dict.fromkeys(GROUPS, OTHER_PORTS["port"])
    again = rolled.roll("--dry", "--json", **OTHER_PORTS)
    assert (again.status, again.changes) == (0, {}), again.text


def test_a_group_that_does_not_start_at_other_ports_is_where_it_was(rolled: Rolled, client: str) -> None:
    settled = rolled.roll()
    assert settled.status == 0, settled.text
    before = rolled.lives()
    with (
        rolled.crashing("RuntimeError: no", hosts=tuple(GROUPS), only_with=f"--port {OTHER_PORTS['port']}"),
        Load(rolled, client, 4) as load,
    ):
        ran = rolled.roll(**OTHER_PORTS)
    print(load.counts)
    assert ran.status == 1, ran.text
    assert "serves again after" in ran.text
    assert load.counts.keys() == {"done"}, (load.others("done"), ran.text)
    assert rolled.lives()["node1"] == before["node1"]
    rolled.wait("both where they were", lambda: rolled.ports() == dict.fromkeys(GROUPS, 8000), 60)


def test_a_run_that_is_killed_after_its_first_group_has_moved_goes_on(rolled: Rolled, client: str) -> None:
    settled = rolled.roll(**OTHER_PORTS)
    assert settled.status == 0, settled.text
    before, former = rolled.lives(), rolled.addresses()["node0"]
    with Load(rolled, client, 4) as load:
        child = rolled.start("fleet", "-y", supervisor="guard")
        rolled.wait("the first group at its new port", lambda: rolled.ports().get("node0") == 8000, 120)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        rolled.wait("no group that is out", rolled.all_up, 60)
    assert load.counts.keys() == {"done"}, load.others("done")
    assert (rolled.lives()["node1"], rolled.ports()["node1"]) == (before["node1"], OTHER_PORTS["port"])
    rolled.sh(EDGE, "systemctl restart haproxy")
    rolled.wait("both where they are", lambda: rolled.ports() == {"node0": 8000, "node1": OTHER_PORTS["port"]}, 60)
    # As if it had been killed before this edge was told: that one knows the first group nowhere.
    backend, server = rolled.backend(), next(name for name in rolled.states() if name.endswith("_node0"))
    address, _, port = former.rpartition(":")
    control = f"check addr {address} port {OTHER_PORTS['control_port']}"
    rolled.sh(EDGE, f"sed -i 's/ {server} .* maxconn/ {server} {former} {control} maxconn/' /etc/haproxy/haproxy.cfg")
    rolled.ask_haproxy(EDGE, f"set server {backend}/{server} addr {address} port {port}")
    rolled.ask_haproxy(EDGE, f"set server {backend}/{server} check-addr {address} port {OTHER_PORTS['control_port']}")
    rolled.wait("the first group nowhere", lambda: rolled.ports().keys() == {"node1"}, 60)
    with Load(rolled, client, 4) as load:
        ran = rolled.roll()
    assert ran.status == 0, ran.text
    assert load.counts.keys() == {"done"}, (load.others("done"), ran.text)
    assert rolled.ports() == dict.fromkeys(GROUPS, 8000)
    assert rolled.lives()["node1"] != before["node1"]


def test_a_group_that_is_rolled_back_to_other_ports_is_followed(rolled: Rolled, client: str) -> None:
    for settings in (OTHER_PORTS, {}):
        settled = rolled.roll(**settings)
        assert settled.status == 0, settled.text
    with Load(rolled, client, 4) as load:
        back = rolled.command_of("rollback", "inventory.py", "--group", "kimi-b", "-y")
    assert back.returncode == 0, back.stderr
    assert load.counts.keys() == {"done"}, (load.others("done"), back.stderr)
    assert rolled.ports() == {"node0": 8000, "node1": OTHER_PORTS["port"]}
    again = rolled.roll()
    assert again.status == 0, again.text
    assert rolled.ports() == dict.fromkeys(GROUPS, 8000)


def test_one_group_is_taken_off_its_hosts_and_the_other_serves(rolled: Rolled, client: str) -> None:
    before = rolled.lives()
    with Load(rolled, client, 4) as load:
        rolled.wait("load", lambda: load.counts["done"] > 8)
        gone = rolled.command_of("remove", "inventory.py", "--group", "kimi-a", "-y")
        assert gone.returncode == 0, gone.stderr
        done = load.counts["done"]
        rolled.wait("more load", lambda: load.counts["done"] > done + 8)
    assert load.counts.keys() == {"done"}, (load.others("done"), gone.stderr)
    assert rolled.lives()["node1"] == before["node1"]
    absent = rolled.command_of("restart", "inventory.py", "--group", "kimi-a", "-y")
    assert absent.returncode == 2
    assert "kimi-a is on none of its hosts: node0" in absent.stderr
