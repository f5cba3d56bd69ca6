"""The engine is installed by uv: sent where it is missing, done again when it was cut off, kept for the way back."""

from __future__ import annotations

import pytest

from muster.sandbox import serving_settings, simulated_gpus
from tests.deploys.conftest import HOSTS, INDEX, Fleet, wheel

pytestmark = pytest.mark.sandbox


def installs(fleet: Fleet, **more: object) -> dict[str, object]:
    """Return settings with which uv installs the stand-in from an index that lies on each host."""
    for name in HOSTS:
        for version in ("0.33.0", "0.33.1"):
            wheel(fleet.box.tree(name) / INDEX, version)
    python = serving_settings.host_python(fleet.box.tree("node0"))
    index = "file:///srv/simple"
    return {"engine_path": None, "index_url": index, "torch_backend": None, "python_version": python, **more}


def test_an_engine_is_installed_kept_and_switched_back(fleet: Fleet) -> None:
    given = installs(fleet)
    first = fleet.deploy(**given)
    assert first.err.count("the release is 1 packages") == 1
    assert first.err.count("fetching 1 files") == 1
    assert "[node1] installing vllm-0.33.0-" in first.err
    # What was fetched for the installation is gone, and what was resolved is kept, the same on both.
    assert fleet.sh("node1", "ls /opt/muster/wheels") == ""
    locks = {fleet.sh(name, "cat /opt/muster/engines/vllm-0.33.0-*.locked/pylock.toml") for name in HOSTS}
    assert len(locks) == 1
    assert fleet.answers()
    # Probe, base, engine, parser, staging, commit, two layers and the verification.
    assert max(first.sessions.values()) <= 20
    release = fleet.sh("node1", "ls -d /opt/muster/engines/vllm-0.33.0-*/bin/..")
    assert fleet.sh("node1", f"stat -c %U {release}/bin/vllm") == "root"
    assert fleet.deploy("--json", **given).results["totals"]["success"] == 0

    fleet.deploy(vllm_version="0.33.1", **given)
    assert len(fleet.sh("node1", "ls -d /opt/muster/engines/*/bin").splitlines()) == 2
    assert "/engines/vllm-0.33.1-" in fleet.sh("node1", "tr '\\0' ' ' </proc/$(pgrep -f -o '[v]llm serve')/cmdline")

    back = fleet.deploy(**given)
    assert "installing" not in back.err
    assert fleet.answers()


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


def test_an_installation_cut_off_by_a_power_failure_is_done_again(fleet: Fleet) -> None:
    given = {**installs(fleet), "index_url": "http://127.0.0.1:9124/simple"}
    for name in HOSTS:
        (fleet.box.tree(name) / "srv/index.py").write_text(SERVER)
        fleet.sh(name, "systemd-run --unit=index python3 /srv/index.py hangs")
    running = fleet.start("kimi_k2_instruct", "-y", **given, engine_fanout=False)
    for name in HOSTS:
        fleet.wait(
            "an unfinished release", lambda name=name: fleet.sh(name, "ls /opt/muster/engines/*/bin/python || true")
        )
        fleet.box.kill_power(name)
    running.kill()
    running.communicate()
    for name in HOSTS:
        fleet.box.start(name)
        assert fleet.sh(name, "ls /opt/muster/engines/*/.muster-complete 2>/dev/null || echo none") == "none"
        fleet.sh(name, "systemd-run --unit=index python3 /srv/index.py answers")
    ran = fleet.deploy(**given)
    assert ran.err.count("removing what an unfinished installation left") == 2
    assert fleet.answers()


def test_an_installation_that_fails_says_so_in_uvs_words_and_the_group_serves_on(fleet: Fleet) -> None:
    given = installs(fleet)
    fleet.deploy(**given)
    lives = fleet.lives()
    ran = fleet.refused(vllm_version="0.33.9", **given)
    assert "vllm==0.33.9" in ran.err
    assert "the running group was not touched" in ran.err
    assert fleet.lives() == lives
    assert fleet.answers()


def test_hosts_of_an_older_driver_get_the_build_that_it_runs_and_stay_so(fleet: Fleet) -> None:
    given = {**installs(fleet), "torch_backend": "auto", "vllm_index_url": "file:///srv/cuda/{version}/{build}"}
    for name in HOSTS:
        wheel(fleet.box.tree(name) / "srv/cuda/0.33.0/cu129/vllm", "0.33.0+cu129")
    before = {name: fleet.box.gpus(name) for name in HOSTS}
    fleet.box.set_gpus("node1", simulated_gpus.driver(before["node1"], "570.124.06"))
    try:
        dry = fleet.run("kimi_k2_instruct", "--json", "--dry", **given)
        first = fleet.deploy(**given)
        second = fleet.deploy("--json", **given)
        fixed = fleet.deploy("--json", **{**given, "torch_backend": "cu129"})
        refused = fleet.refused(**{**given, "torch_backend": "cu130"})
        fleet.box.set_gpus("node1", simulated_gpus.driver(before["node1"], "515.65.01"))
        too_old = fleet.refused(**given)
    finally:
        for name, was in before.items():
            fleet.box.set_gpus(name, was)
    note = "engine build: cu129 (CUDA 12.9), for driver 570.124.06 on node1"
    assert note in dry.err
    assert note in first.err
    assert "engine    vLLM 0.33.0, build cu129" in first.err
    # Both hosts, also the one whose driver runs the newer build: ranks are of one build.
    for name in HOSTS:
        assert fleet.sh(name, "ls /opt/muster/engines").startswith("vllm-0.33.0+cu129-")
        assert fleet.sh(name, "ls -d /opt/muster/engines/*/lib/python3*/site-packages/vllm-0.33.0+cu129.dist-info")
    assert second.results["totals"]["success"] == fixed.results["totals"]["success"] == 0
    # The plan assumed the other build, and was made again: one more look at each host.
    assert second.sessions == dict.fromkeys(HOSTS, 3)
    assert fixed.sessions == dict.fromkeys(HOSTS, 2)
    assert "driver.build on node1 failed; nothing was touched" in refused.err
    assert "driver.version on node1 failed; nothing was touched" in too_old.err
    assert "525 or newer: no build of vLLM 0.33.0 runs on an older one" in " ".join(too_old.err.split())
    assert fleet.answers()
