"""First run, second run, a change, a dry run: on real hosts, with the stand-in engine."""

from __future__ import annotations

import pytest

from tests.deploys.conftest import HOSTS, Testbed

pytestmark = pytest.mark.sandbox

VERIFY = "Verify | every rank answers, and runs what was planned"


def test_from_bare_hosts_to_an_endpoint_and_then_nothing_to_do(testbed: Testbed) -> None:
    first = testbed.run("kimi_k2_instruct", "-y")
    assert first.status == 0, first.text
    assert "DP ranks 0 to 1 each answered; served as kimi-k2" in first.err
    assert f"endpoint  http://{testbed.box.hosts[0].address}:8000/v1" in first.err
    assert testbed.answers()
    assert max(first.sessions.values()) <= 20

    lives, files = testbed.lives(), {name: testbed.files(name) for name in HOSTS}
    second = testbed.deploy("--json")
    assert second.results["totals"]["success"] == 0
    assert second.results["totals"]["error"] == 0
    assert "every rank runs as planned" in second.err
    # One probe, and one session for the verification.
    assert second.sessions == dict.fromkeys(HOSTS, 2)
    assert testbed.lives() == lives
    assert {name: testbed.files(name) for name in HOSTS} == files


def test_a_changed_setting_restarts_the_group_once_and_together(serving: Testbed) -> None:
    starts = {name: serving.starts(name) for name in HOSTS}
    ran = serving.deploy(max_num_seqs=17)
    assert {name: serving.starts(name) for name in HOSTS} == {name: count + 1 for name, count in starts.items()}
    assert "the group will be restarted:" in ran.err
    assert max(ran.sessions.values()) <= 20
    for name in HOSTS:
        assert "--max-num-seqs 17" in serving.command_line(name)


def test_a_dry_run_touches_nothing_and_shows_what_would_change(testbed: Testbed) -> None:
    before = {name: testbed.files(name) for name in HOSTS}
    dry = testbed.run("kimi_k2_instruct", "--json", "--dry")
    assert dry.status == 0, dry.text
    assert dry.changes["Files | units and configuration are in place"] == list(HOSTS)
    assert dry.changes["Bring up | head up"] == ["node0"]
    # One probe; and since no group runs, the hosts meet on the fabric.
    assert dry.sessions == dict.fromkeys(HOSTS, 2)
    assert {name: testbed.files(name) for name in HOSTS} == before
    assert not testbed.state.exists()


def test_a_dry_run_of_a_change_leaves_the_group_alone_and_shows_the_difference(serving: Testbed) -> None:
    lives, files = serving.lives(), {name: serving.files(name) for name in HOSTS}
    dry = serving.run("kimi_k2_instruct", "--dry", "--diff", max_num_seqs=17)
    assert dry.status == 0, dry.text
    assert "-    --max-num-seqs 256 \\" in dry.err
    assert "+    --max-num-seqs 17 \\" in dry.err
    assert serving.lives() == lives
    assert {name: serving.files(name) for name in HOSTS} == files


def test_a_file_changed_by_hand_is_put_back_and_a_stray_one_removed(serving: Testbed) -> None:
    serving.sh("node1", "echo '# mine' >>/etc/muster/kimi-k2-instruct/vllm.env; touch /etc/muster/kimi-k2-instruct/x")
    lives = serving.lives()
    ran = serving.deploy()
    assert "node1: /etc/muster/kimi-k2-instruct/vllm.env differs" in ran.err
    assert all(serving.lives()[name] != lives[name] for name in HOSTS)
    assert serving.sh("node1", "grep -c mine /etc/muster/kimi-k2-instruct/vllm.env || true") == "0"
    assert serving.sh("node1", "ls /etc/muster/kimi-k2-instruct/x 2>/dev/null || echo gone") == "gone"
    assert serving.deploy("--json").results["totals"]["success"] == 0


def test_a_limit_that_goes_missing_comes_back_without_a_restart(serving: Testbed) -> None:
    serving.sh("node0", "rm /etc/sysctl.d/90-muster.conf")
    lives = serving.lives()
    ran = serving.deploy("--json")
    assert ran.results["totals"]["success"] == 1
    assert serving.lives() == lives
    assert serving.sh("node0", "ls /etc/sysctl.d/90-muster.conf")


def test_both_hosts_rebooted_the_group_returns_by_itself(serving: Testbed) -> None:
    lives = serving.lives()
    for name in HOSTS:
        serving.box.reboot(name, wait=False)
    for name in HOSTS:
        serving.wait("a new life", lambda name=name: name in serving.up and serving.life(name) not in ("", lives[name]))
    serving.wait("an answer", serving.answers, 90)
    assert serving.deploy("--json").results["totals"]["success"] == 0


def test_stop_and_restart_need_no_recipe(serving: Testbed) -> None:
    stopped = serving.run("stop", "-y")
    assert stopped.status == 0, stopped.text
    assert not serving.answers()
    for name in HOSTS:
        assert serving.sh(name, "pgrep -f '[v]llm serve' || echo none") == "none"
    started = serving.run("restart", "-y")
    assert started.status == 0, started.text
    assert serving.answers()
    lives = serving.lives()
    again = serving.run("restart", "-y")
    assert again.status == 0, again.text
    assert all(serving.lives()[name] != lives[name] for name in HOSTS)
    assert serving.answers()


def test_a_deploy_after_a_stop_starts_what_is_there(serving: Testbed) -> None:
    assert serving.run("stop", "-y").status == 0
    ran = serving.deploy("--json")
    assert serving.answers()
    changed = [step["name"] for step in ran.results["operations"] if step["success"]]
    assert all(name.startswith(("Bring up", "Keep")) for name in changed)
