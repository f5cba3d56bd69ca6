"""What goes wrong is found before anything that runs is touched, and is said with the host's name."""

from __future__ import annotations

import pytest

from tests.deploys.conftest import GROUP, HOSTS, UNIT, Testbed

pytestmark = pytest.mark.sandbox


def test_a_flag_that_the_installed_vllm_rejects(untouched: Testbed) -> None:
    ran = untouched.refused(extra_args=["--no-such-flag"])
    assert "unrecognized arguments: --no-such-flag" in ran.err
    assert "fix: correct extra_args" in ran.err
    assert "the running group was not touched" in ran.err


def test_a_model_whose_own_code_is_pinned_to_no_commit(untouched: Testbed) -> None:
    ran = untouched.refused(allow_unpinned_code=False)
    assert "runs its own code (--trust-remote-code) at no pinned revision" in ran.err
    assert "fix:    muster pin kimi-k2-instruct" in ran.err
    assert "nothing was touched" in ran.err


def test_a_host_that_fails_half_way(untouched: Testbed) -> None:
    # Staging writes there: the head can, its peer cannot.
    in_the_way = f"/etc/systemd/system/.{UNIT}.muster-new"
    untouched.sh("node1", f"mkdir {in_the_way}")
    try:
        ran = untouched.refused(max_num_seqs=17)
    finally:
        untouched.sh("node1", f"rmdir {in_the_way}")
    assert "nothing on this host was changed" in ran.err
    assert "node1 failed at 'Files: units, configuration and secrets are staged'; the running group was" in ran.err
    assert "the running group was not touched" in ran.err
    # What the other host had staged goes with the next run.
    assert untouched.sh("node0", f"ls {in_the_way}")
    assert untouched.deploy("--json").results["failed_hosts"] == []
    assert untouched.sh("node0", f"ls {in_the_way} 2>/dev/null || echo gone") == "gone"


def test_a_full_disk(untouched: Testbed) -> None:
    directory = f"/etc/muster/{GROUP}"
    fill = f"mount -t tmpfs -o size=4k,mode=755 full {directory} && head -c 9999 /dev/zero >{directory}/fill"
    untouched.sh("node1", f"{fill} || true")
    try:
        ran = untouched.refused(max_num_seqs=17)
    finally:
        untouched.sh("node1", f"umount {directory}")
    assert f"could not write {directory}/" in ran.err
    assert "No space left on device" in ran.err
    assert "the running group was not touched" in ran.err
    untouched.deploy()  # takes away what the other host has staged


def test_hosts_that_are_not_what_the_inventory_says(untouched: Testbed) -> None:
    was = untouched.box.gpus("node1")
    untouched.box.set_gpus("node1", {**was, "gpus": []})
    try:
        ran = untouched.refused("--data", "fabric_interface=eth7")
    finally:
        untouched.box.set_gpus("node1", was)
    assert "driver.present" in ran.err
    assert "fabric.address  node0, node1" in ran.err
    assert "fabric.address on node0, fabric.address on node1" in ran.err
    assert "nothing was touched" in ran.err


def test_a_port_that_somebody_else_holds(untouched: Testbed) -> None:
    squat = "import socket, time; held = socket.create_server((str(), 9123)); time.sleep(600)"
    untouched.sh("node0", f"systemd-run --unit=squatter python3 -c '{squat}'")
    try:
        untouched.wait("a listener", lambda: ":9123" in untouched.sh("node0", "ss -ltn"))
        ran = untouched.refused(port=9123)
    finally:
        untouched.sh("node0", "systemctl stop squatter")
    assert "host.ports  node0" in ran.err
    assert "9123 (port) by python3, pid" in ran.err
    assert "unit squatter.service" in ran.err


def test_a_limit_that_leaves_a_host_out(untouched: Testbed) -> None:
    ran = untouched.refused("--limit", "node0", max_num_seqs=17)
    assert "node1: left out by --limit" in ran.err
    assert "nothing was touched" in ran.err


def test_a_limit_is_fine_while_nothing_changes(untouched: Testbed) -> None:
    ran = untouched.deploy("--json", "--limit", "node0")
    assert ran.results["totals"]["success"] == 0


@pytest.mark.parametrize("flag", ["--serial", "--no-wait"])
def test_hosts_must_go_step_by_step_together(untouched: Testbed, flag: str) -> None:
    ran = untouched.run("kimi_k2_instruct", "-y", flag, max_num_seqs=17)
    untouched.deploy()  # takes away what was staged
    assert "run without --serial and --no-wait" in ran.err
    assert ran.status != 0


def test_an_unknown_setting(untouched: Testbed) -> None:
    ran = untouched.refused("--data", "max_model_length=1000")
    assert "did you mean 'max_model_len'?" in ran.err


def test_an_unreachable_host(serving: Testbed) -> None:
    life = serving.life("node0")
    serving.box.kill_power("node1")
    ran = serving.refused(max_num_seqs=17)
    assert "[node1]" in ran.err
    assert "node1" in ran.err
    assert serving.life("node0") == life


def test_no_hosts_have_a_group_to_stop(testbed: Testbed) -> None:
    ran = testbed.run("stop", "-y")
    assert ran.status != 0
    assert "groups on these hosts: none" in ran.err
    assert "deploy a recipe first" in ran.err


def test_a_rank_that_dies_while_starting_ends_the_run_with_its_own_words(testbed: Testbed) -> None:
    with testbed.crashing("CUDA error: out of memory", ["node1"]):
        ran = testbed.refused()
    assert f"{UNIT} died; its last lines:" in ran.err
    assert "CUDA error: out of memory" in ran.err
    assert f"stopped waiting: {UNIT} died on node1" in ran.err
    testbed.deploy()
    assert testbed.answers()


def test_a_group_that_is_not_ready_in_time(testbed: Testbed) -> None:
    for name in HOSTS:
        testbed.sh(name, "mkdir -p /etc/standin; echo 600 >/etc/standin/start_delay")
    ran = testbed.refused(ready_timeout=8)
    assert "not ready after 8 s: waited until the head answers /health" in ran.err
    assert "raise ready_timeout" in ran.err
