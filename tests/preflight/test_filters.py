"""Firewalls in the words of nft, firewalld and ufw; and what the meeting on the fabric makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.preflight import filters, outcome
from muster.preflight.pairs import Measured
from muster.preflight.verdict import Verdict

from . import sample
from .sample import printed

IPTABLES = """table ip filter {
\tchain INPUT {
\t\ttype filter hook input priority filter; policy accept;
\t\tcounter packets 1 bytes 2 jump KUBE
\t\tcounter packets 1 bytes 2 jump site
\t}

\tchain KUBE {
\t\tct state established accept
\t}

\tchain site {
\t\tip saddr 198.51.100.0/24 accept comment "never drop these"
\t\ttcp dport 1024-65535 reject with tcp reset
\t}

\tchain FORWARD {
\t\ttype filter hook forward priority filter; policy drop;
\t}
}
"""
OWN = """table inet muster-k2 {
\tchain input {
\t\ttype filter hook input priority filter - 10; policy accept;
\t\ttcp dport { 8000 } counter packets 0 bytes 0 drop
\t}
}
"""
OPEN = """table inet filter {
\tchain input {
\t\ttype filter hook input priority filter; policy accept;
\t}
}
"""


def test_a_refusal_is_found_behind_jumps_and_named() -> None:
    (one,) = filters.input_filters(IPTABLES)
    assert str(one) == "nftables table ip filter, chain INPUT (tcp dport 1024-65535 reject with tcp reset)"
    assert "ip saddr { ADDRESSES } accept" in one.fix


@pytest.mark.parametrize("ruleset", ["", OWN, OPEN, "table ip x {\n\tchain input {\n\t}\n}\n"])
def test_nothing_refuses(ruleset: str) -> None:
    assert list(filters.input_filters(ruleset)) == []


@given(
    st.text(max_size=400) | st.lists(st.sampled_from([*IPTABLES.splitlines(True), *OWN.splitlines(True)])).map("".join)
)
def test_any_ruleset_is_read(text: str) -> None:
    list(filters.input_filters(text))


# What a host may send instead of an answer.
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.sampled_from(["value", "error", "text", "rc", "works", "why", "first"]), inner),
)


@given(
    st.dictionaries(st.sampled_from(["ruleset", "trial", "firewalld", "ufw", "ip_filter", "port_range", "error"]), json)
)
def test_any_answer_is_read(answer: dict[str, Any]) -> None:
    assert isinstance(filters.read(answer), filters.Filters)


def judged(*, running: bool = False, **result: Any) -> dict[str, Verdict]:
    hosts = {"a": "198.51.100.11", "b": "198.51.100.12"}
    walls = {"a": IPTABLES, "b": ""}
    reports = [sample.report(n, at, probe_firewall__ruleset=printed(walls[n])) for n, at in hosts.items()]
    measured = [Measured("a", "b", **result)] if result else []
    verdicts = outcome.judge_group(
        "t", reports, {n: sample.needs(n, at) for n, at in hosts.items()}, measured=measured, running=running
    )
    return {f"{v.check}@{v.host}": v for v in verdicts.verdicts if v.check in ("host.firewall", "fabric.reach")}


def test_a_firewall_that_lets_peers_through_is_fine_and_an_untried_one_a_warning() -> None:
    assert judged()["host.firewall@a"].level == "warn"
    passed = judged(packet=1500)
    assert {verdict.level for verdict in passed.values()} == {"ok"}
    assert "lets the group's hosts through" in passed["host.firewall@a"].found


def test_a_group_that_runs_is_proof_enough() -> None:
    assert judged(running=True)["host.firewall@a"].level == "ok"


def test_a_way_that_is_shut_names_the_firewall_of_either_end() -> None:
    shut = judged(error="b to a: 3 of 3 ephemeral ports (40001, 40002, 40003): timed out")
    for host in ("a", "b"):
        verdict = shut[f"fabric.reach@{host}"]
        assert verdict.level == "fail"
        assert "a has nftables table ip filter, chain INPUT (tcp dport 1024-65535 reject" in verdict.found
        assert "ip saddr { ADDRESSES } accept" in verdict.fix
