"""From a bundle to an answered completion on hosts that reach nothing but each other, with the real vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.sandbox import passthrough, vllm_wheel
from tests.conftest import Boot
from tests.engine.conftest import RANKS, Real

pytestmark = [pytest.mark.sandbox, pytest.mark.engine, pytest.mark.nightly]
CONNECTED = """\
hosts = (
    [
        ("h0", {"gpu": "H200", "gpus": 1, "fabric_address": "198.51.100.1"}),
        ("h1", {"gpu": "H200", "gpus": 1, "fabric_address": "198.51.100.2"}),
    ],
    {},
)
"""
ALONE = """\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = (
    _hosts({name!r}),
    {{"bundle": {bundle!r}, "uv_cache_dir": None, "find_links": [], "index_url": None, "extra_index_urls": []}},
)
"""


def test_from_a_bundle_to_answers_without_a_network(sandbox: Boot, tmp_path: Path) -> None:
    box = sandbox("offline", 2)
    there = Real(box, tmp_path / "state")
    for place in ("connected", "alone", "wheels"):
        (tmp_path / place).mkdir()
    (tmp_path / "wheels" / vllm_wheel.file_name()).write_bytes(vllm_wheel.build())
    # Settings of the group `sandbox` go by the name of the inventory.
    (tmp_path / "connected" / "sandbox.py").write_text(CONNECTED)
    bundle = tmp_path / "bundle"
    (tmp_path / "alone" / "sandbox.py").write_text(ALONE.format(name=box.name, bundle=str(bundle)))
    links = [str(tmp_path / "wheels"), *passthrough.machine_indexes().find_links]
    words = ["bundle", str(tmp_path / "connected" / "sandbox.py"), "kimi-k2-instruct", "--out", str(bundle)]
    words += ["--platform", "x86_64-manylinux_2_34", "--data", f"find_links={links!r}".replace("'", '"')]
    made = there.run("muster", *words)
    assert made.returncode == 0, made.stdout + made.stderr

    for host in box.hosts:
        box.exec(host.name, ["ip", "route", "delete", "default"])
    inventory = str(tmp_path / "alone" / "sandbox.py")
    ran = there.run("pyinfra", "-y", inventory, "deploys/kimi_k2_instruct.py", timeout=1800)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for host in box.hosts:
        told = box.exec(host.name, ["ip", "route", "get", "198.51.100.1"], check=False)
        assert told.returncode != 0
    assert [there.complete(rank) for rank in RANKS] == ["length"] * len(RANKS)
