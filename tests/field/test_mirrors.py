"""A mirror of the hub without Xet serves the engine's own download too (reported: hf-mirror-site#50)."""

from __future__ import annotations

from tests.sample_plans import plan


def test_xet_is_off_for_the_engine_behind_a_mirror() -> None:
    behind = plan("kimi-k2-instruct", 2, "H200", hf_endpoint="https://mirror.example.org")
    assert all(p.env["HF_HUB_DISABLE_XET"] == "1" for host in behind.hosts.values() for p in host.processes)
    straight = plan("kimi-k2-instruct", 2, "H200")
    assert not any("HF_HUB_DISABLE_XET" in p.env for host in straight.hosts.values() for p in host.processes)
