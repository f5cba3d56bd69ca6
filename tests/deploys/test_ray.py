"""Tensor parallel inside, pipeline across: a real Ray cluster over two hosts, formed before the engine starts."""

from __future__ import annotations

import pytest

from muster.sandbox import serving_settings
from tests.deploys.conftest import GROUP, HOSTS, INDEX, Testbed, wheel

pytestmark = pytest.mark.sandbox

RAY, VLLM = f"muster-{GROUP}-ray.service", f"muster-{GROUP}-vllm.service"
TOKEN = f"/etc/muster/{GROUP}/ray-token"


def with_ray(testbed: Testbed, **more: object) -> dict[str, object]:
    """Return settings with which uv installs the stand-in and the real Ray."""
    for name in HOSTS:
        wheel(testbed.box.tree(name) / INDEX, "0.33.0")
    machine = serving_settings.engine(testbed.box.name)
    return {
        "strategy": "tp-pp",
        "supervisor": "systemd",
        "engine_path": None,
        "engine_requirements": [f"vllm @ file:///{INDEX}/vllm-0.33.0-py3-none-any.whl"],
        "torch_backend": None,
        "python_version": serving_settings.host_python(testbed.box.tree("node0")),
        "index_url": machine.index_url,
        "extra_index_urls": list(machine.extra_index_urls),
        "ssl_cert_file": machine.ssl_cert_file,
        "proxy": machine.proxy,
        "uv_cache_dir": machine.uv_cache_dir,
        "ready_timeout": 300,
        **more,
    }


def test_all_gpus_join_ray_before_the_engine_starts(testbed: Testbed) -> None:
    given = with_ray(testbed)
    first = testbed.deploy(**given)
    order = [first.err.index(f"Bring up | {name} up") for name in ("Ray head", "Ray workers", "vLLM")]
    assert order == sorted(order)
    assert max(first.sessions.values()) <= 20
    assert testbed.answers(model="moonshotai/Kimi-K2-Instruct")
    release = testbed.sh("node0", "dirname $(ls -d /opt/muster/engines/*/bin)")
    head = testbed.box.hosts[0].address
    status = testbed.sh(
        "node0",
        f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={TOKEN} {release}/bin/ray status --address {head}:6379",
    )
    assert "0.0/2.0 GPU" in status
    assert testbed.deploy("--json", **given).results["totals"]["success"] == 0

    # The cluster's token: one for both hosts, root's only, and nowhere that anybody else can read.
    token = testbed.sh("node0", f"cat {TOKEN}")
    assert len(token) == 64
    assert testbed.sh("node1", f"cat {TOKEN}") == token
    assert testbed.sh("node1", f"stat -c %a:%U {TOKEN}") == "600:root"
    assert token not in first.text
    for name in HOSTS:
        for command in ("ps -eo args", f"systemctl show {RAY} {VLLM}", "journalctl --no-pager -q -n 5000"):
            assert token not in testbed.sh(name, command)
    kept = list(testbed.state.rglob("ray-token"))
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600]

    # Another control machine, which knows no secret, leaves the one that all hosts have.
    for path in kept:
        path.unlink()
    assert testbed.deploy("--json", **given).results["totals"]["success"] == 0


@pytest.mark.nightly
def test_a_guarded_ray_group_forms_anew_when_a_worker_of_ray_dies(testbed: Testbed) -> None:
    testbed.deploy(**with_ray(testbed, supervisor="guard"))
    guard = f"muster-{GROUP}.service"
    before = {name: testbed.life(name, guard) for name in HOSTS}
    assert testbed.answers(model="moonshotai/Kimi-K2-Instruct")
    testbed.sh("node1", "pkill -KILL -x raylet")
    testbed.wait("both guards start anew", lambda: all(testbed.life(name, guard) != before[name] for name in HOSTS), 90)
    testbed.wait("an answer", lambda: testbed.answers(model="moonshotai/Kimi-K2-Instruct"), 240)
