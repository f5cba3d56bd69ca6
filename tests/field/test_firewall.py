"""trl#4737, nccl#388: an administrator opened the ports that the settings name; the ephemeral ones stay shut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from muster.sandbox.box import Sandbox
from tests.preflight import boxes

pytestmark = pytest.mark.sandbox
BOTH = ("node0", "node1")
RULES = """
table inet fw {
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    iif lo accept
    icmp type echo-request accept
    tcp dport { 22, 8000, 29550, 29600, 29610, 29650 } accept
  }
}
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    made = Sandbox.up("field-firewall", 2, gpu="H200", gpus=2)
    try:
        yield made
    finally:
        made.down()


def pairs(box: Sandbox) -> boxes.Run:
    return boxes.muster(box, "preflight", "kimi-k2-instruct", "--waive", "rdma.link", "--format", "json")


def test_closed_ephemeral_ports_fail_and_the_firewall_is_named(box: Sandbox) -> None:
    load = ["sh", "-c", "cat > /root/firewall.nft && nft -f /root/firewall.nft"]
    drop = ["nft", "delete", "table", "inet", "fw"]
    before = pairs(box)
    assert set(before.levels("fabric.reach").values()) == {"ok"}
    with ExitStack() as stack:
        for host in BOTH:
            box.exec(host, load, stdin=RULES)
            stack.callback(box.exec, host, drop)
        run = pairs(box)
    assert run.levels("fabric.reach") == dict.fromkeys(BOTH, "fail")
    found = run.found("fabric.reach", "node0")
    assert "3 of 3 ephemeral ports" in found
    assert "of the group's own ports" not in found
    assert "node1 has nftables table inet fw, chain input (policy drop)" in found
    (verdict,) = [v for v in run.data["verdicts"] if (v["check"], v["host"]) == ("fabric.reach", "node0")]
    assert "in inet fw input, before that rule: ip saddr { ADDRESSES } accept" in verdict["fix"]
    assert run.levels("host.firewall") == dict.fromkeys(BOTH, "warn")


def test_a_firewall_that_admits_the_group_s_hosts_passes(box: Sandbox) -> None:
    addresses = ", ".join(box.state.host(host).address for host in BOTH)
    admitted = RULES.replace("iif lo accept", f"iif lo accept\n    ip saddr {{ {addresses} }} accept")
    with ExitStack() as stack:
        for host in BOTH:
            box.exec(host, ["sh", "-c", "cat > /root/firewall.nft && nft -f /root/firewall.nft"], stdin=admitted)
            stack.callback(box.exec, host, ["nft", "delete", "table", "inet", "fw"])
        run = pairs(box)
    assert set(run.levels("fabric.reach").values()) == {"ok"}
    assert "lets the group's hosts through" in run.found("host.firewall", "node0")
