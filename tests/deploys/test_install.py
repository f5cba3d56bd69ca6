"""The engine is installed by uv: sent where it is missing, done again when it was cut off, kept for the way back."""

from __future__ import annotations

import pytest

from muster.sandbox import serving_settings, simulated_gpus
from tests.deploys.conftest import HOSTS, INDEX, Testbed, wheel

pytestmark = pytest.mark.sandbox


def installs(testbed: Testbed, **more: object) -> dict[str, object]:
    """Return settings with which uv installs the stand-in from an index that lies on each host."""
    for name in HOSTS:
        for version in ("0.33.0", "0.33.1"):
            wheel(testbed.box.tree(name) / INDEX, version)
    python = serving_settings.host_python(testbed.box.tree("node0"))
    index = "file:///srv/simple"
    return {"engine_path": None, "index_url": index, "torch_backend": None, "python_version": python, **more}


def test_an_engine_is_installed_kept_and_switched_back(testbed: Testbed) -> None:
    given = installs(testbed)
    first = testbed.deploy(**given)
    assert first.err.count("the release is 1 packages") == 1
    assert first.err.count("fetching 1 files") == 1
    assert "[node1] installing vllm-0.33.0-" in first.err
    # What was fetched for the installation is gone, and what was resolved is kept, the same on both.
    assert testbed.sh("node1", "ls /opt/muster/wheels") == ""
    locks = {testbed.sh(name, "cat /opt/muster/engines/vllm-0.33.0-*.locked/pylock.toml") for name in HOSTS}
    assert len(locks) == 1
    assert testbed.answers()
    # Probe, base, engine, parser, staging, commit, two layers and the verification.
    assert max(first.sessions.values()) <= 20
    release = testbed.sh("node1", "ls -d /opt/muster/engines/vllm-0.33.0-*/bin/..")
    assert testbed.sh("node1", f"stat -c %U {release}/bin/vllm") == "root"
    assert testbed.deploy("--json", **given).results["totals"]["success"] == 0

    testbed.deploy(vllm_version="0.33.1", **given)
    assert len(testbed.sh("node1", "ls -d /opt/muster/engines/*/bin").splitlines()) == 2
    assert "/engines/vllm-0.33.1-" in testbed.command_line("node1")

    back = testbed.deploy(**given)
    assert "installing" not in back.err
    assert testbed.answers()


SERVER = """\
import functools, http.server, sys, time
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.endswith(".whl") and sys.argv[1] == "hangs":
            time.sleep(600)
        super().do_GET()
handler = functools.partial(Handler, directory="/srv")
http.server.ThreadingHTTPServer(("127.0.0.1", 9124), handler).serve_forever()
"""


@pytest.mark.nightly
def test_an_installation_cut_off_by_a_power_failure_is_done_again(testbed: Testbed) -> None:
    given = {**installs(testbed), "index_url": "http://127.0.0.1:9124/simple"}
    for name in HOSTS:
        (testbed.box.tree(name) / "srv/index.py").write_text(SERVER)
        testbed.sh(name, "systemd-run --unit=index python3 /srv/index.py hangs")
    running = testbed.start("kimi_k2_instruct", "-y", **given, engine_fanout=False)
    for name in HOSTS:
        testbed.wait(
            "an unfinished release", lambda name=name: testbed.sh(name, "ls /opt/muster/engines/*/bin/python || true")
        )
        testbed.box.kill_power(name)
    running.kill()
    running.communicate()
    for name in HOSTS:
        testbed.box.start(name)
        assert testbed.sh(name, "ls /opt/muster/engines/*/.muster-complete 2>/dev/null || echo none") == "none"
        testbed.sh(name, "systemd-run --unit=index python3 /srv/index.py answers")
    ran = testbed.deploy(**given)
    assert ran.err.count("removing what an unfinished installation left") == 2
    assert testbed.answers()


def test_an_installation_that_fails_says_so_in_uvs_words_and_the_group_serves_on(testbed: Testbed) -> None:
    given = installs(testbed)
    testbed.deploy(**given)
    lives = testbed.lives()
    ran = testbed.refused(vllm_version="0.33.9", **given)
    assert "vllm==0.33.9" in ran.err
    assert "the running group was not touched" in ran.err
    assert testbed.lives() == lives
    assert testbed.answers()


@pytest.mark.nightly
def test_hosts_of_an_older_driver_get_the_build_that_it_runs_and_stay_so(testbed: Testbed) -> None:
    given = {**installs(testbed), "torch_backend": "auto", "vllm_index_url": "file:///srv/cuda/{version}/{build}"}
    for name in HOSTS:
        wheel(testbed.box.tree(name) / "srv/cuda/0.33.0/cu129/vllm", "0.33.0+cu129")
    before = {name: testbed.box.gpus(name) for name in HOSTS}
    testbed.box.set_gpus("node1", simulated_gpus.driver(before["node1"], "570.124.06"))
    try:
        dry = testbed.run("kimi_k2_instruct", "--json", "--dry", **given)
        first = testbed.deploy(**given)
        second = testbed.deploy("--json", **given)
        fixed = testbed.deploy("--json", **{**given, "torch_backend": "cu129"})
        refused = testbed.refused(**{**given, "torch_backend": "cu130"})
        testbed.box.set_gpus("node1", simulated_gpus.driver(before["node1"], "515.65.01"))
        too_old = testbed.refused(**given)
    finally:
        for name, was in before.items():
            testbed.box.set_gpus(name, was)
    note = "engine build: cu129 (CUDA 12.9), for driver 570.124.06 on node1"
    assert note in dry.err
    assert note in first.err
    assert "engine    vLLM 0.33.0, build cu129" in first.err
    # Both hosts, also the one whose driver runs the newer build: ranks are of one build.
    for name in HOSTS:
        assert testbed.sh(name, "ls /opt/muster/engines").startswith("vllm-0.33.0+cu129-")
        assert testbed.sh(name, "ls -d /opt/muster/engines/*/lib/python3*/site-packages/vllm-0.33.0+cu129.dist-info")
    assert second.results["totals"]["success"] == fixed.results["totals"]["success"] == 0
    # The plan assumed the other build, and was made again: one more look at each host.
    assert second.sessions == dict.fromkeys(HOSTS, 3)
    assert fixed.sessions == dict.fromkeys(HOSTS, 2)
    assert "driver.build on node1 failed; nothing was touched" in refused.err
    assert "driver.version on node1 failed; nothing was touched" in too_old.err
    assert "525 or newer: no build of vLLM 0.33.0 runs on an older one" in " ".join(too_old.err.split())
    assert testbed.answers()
