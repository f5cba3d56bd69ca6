"""Hosts that reach nothing but each other get their engine out of a bundle, and serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.sandbox import serving_settings
from tests.deploys.conftest import HOSTS, INVENTORY, Testbed, wheel

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]


@pytest.fixture
def alone(testbed: Testbed) -> Iterator[Testbed]:
    """Hosts without a route to anything but their own network."""
    for name in HOSTS:
        testbed.sh(name, "ip route delete default")
        assert testbed.sh(name, "ip route get 198.51.100.1 2>&1 || true").endswith("Network is unreachable")
    yield testbed
    gateway = str(testbed.box.hosts[0].address).rsplit(".", 1)[0] + ".1"
    for name in HOSTS:
        testbed.sh(name, f"ip route replace default via {gateway}")


def test_from_a_bundle_to_answers_without_a_network(alone: Testbed, tmp_path: Path) -> None:
    index, bundle = tmp_path / "simple", tmp_path / "bundle"
    wheel(index / "vllm", "0.33.0")
    given = {"strategy": "dp-ep", "allow_oversubscription": True, "index_url": index.as_uri(), "torch_backend": None}
    given["python_version"] = serving_settings.host_python(alone.box.tree("node0"))
    inventory = tmp_path / "connected.py"
    inventory.write_text(INVENTORY.format(name=alone.box.name, settings=given))
    made = alone.muster("bundle", "--out", str(bundle), inventory=str(inventory))
    assert made.returncode == 0, made.stdout + made.stderr
    assert "1 wheels" in made.stdout

    there = {"engine_path": None, "bundle": str(bundle), "torch_backend": None}
    ran = alone.deploy(**there, python_version=given["python_version"])
    assert "the release is" not in ran.err  # nothing was resolved on a host
    assert alone.answers()
    for name in HOSTS:
        assert alone.sh(name, "ls /opt/muster/bundles/*/current/wheels") == "vllm-0.33.0-py3-none-any.whl"
    again = alone.deploy("--json", **there, python_version=given["python_version"])
    assert again.results["totals"]["success"] == 0
