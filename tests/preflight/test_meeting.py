"""What hosts that met all at once say of each other's ports and of full packets."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from muster.preflight import meeting, pairs

from . import sample

OPEN = [[29501, "low", ""], [40001, "ephemeral", ""], [40002, "ephemeral", ""], [40003, "ephemeral", ""]]
SHUT = [[port, kind, "timed out" if kind == "ephemeral" else ""] for port, kind, _ in OPEN]


def met(*peers: str, **odd: dict[str, Any]) -> dict[str, Any]:
    well = {"packet": 1500, "ping": {"arrived": True}, "ports": OPEN}
    return {"peers": {peer: odd.get(peer, well) for peer in peers}}


def failed(answers: dict[str, Any]) -> set[tuple[str, str]]:
    return {(v.check, v.host) for v in pairs.verdicts(meeting.results(answers)) if v.level == "fail"}


def test_each_host_brings_its_own_ports_and_the_others_addresses() -> None:
    needs = {"a": sample.needs("a", "198.51.100.11", peer_ports=(29501,)), "b": sample.needs("b", "198.51.100.12")}
    asked = meeting.requests(needs, {"a": 9000, "b": 1500}, 29650, "t")
    assert (asked["a"]["low"], asked["b"]["low"]) == ([29501], [])
    assert asked["a"]["peers"] == {"b": {"address": "198.51.100.12", "packet": 1500}}


def test_hosts_that_met_reach_each_other_and_are_judged_by_nothing_else() -> None:
    answers = {"a": met("b", "c"), "b": met("a", "c"), "c": met("a", "b")}
    results = meeting.results(answers)
    assert [tuple(sorted(one.hosts)) for one in results] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert {(v.check, v.level, v.found) for v in pairs.verdicts(results)} == {("fabric.reach", "ok", "reaches 2 of 2")}
    assert pairs.slowest(results) is None


def test_one_way_that_is_shut_shows_on_both_hosts_of_the_pair() -> None:
    shut = {"error": "timed out"}
    assert failed({"a": met("b", "c"), "b": met("a", "c"), "c": met("a", "b", a=shut)}) == {
        ("fabric.reach", "a"),
        ("fabric.reach", "c"),
    }
    gone = meeting.results({"a": met("b"), "b": {"error": "the SSH session ended"}})
    assert [one.error for one in gone] == ["the SSH session ended"]


def test_ephemeral_ports_that_are_shut_are_named_with_the_way() -> None:
    (result,) = meeting.results({"a": met("b"), "b": met("a", a={"packet": 1500, "ports": SHUT})})
    assert result.error == "b to a: 3 of 3 ephemeral ports (40001, 40002, 40003): timed out"
    low = [[29501, "low", "No route to host"], *OPEN[1:]]
    (result,) = meeting.results({"a": met("b", b={"packet": 1500, "ports": low}), "b": met("a")})
    assert result.error == "a to b: 1 of 1 of the group's own ports (29501): No route to host"


def test_a_measurement_carries_the_failure_of_the_meeting() -> None:
    measured = [pairs.Measured("a", "b", round_trip=1e-4, bits=1e10)]
    results = meeting.results({"a": met("b"), "b": met("a", a={"packet": 1500, "ports": SHUT})})
    (both,) = meeting.combined(measured, results)
    assert (both.error, both.bits) == (results[0].error, 1e10)
    assert meeting.combined([], results) == results


def test_packets_lost_either_way_are_reported() -> None:
    lost = {"packet": 9000, "ping": {"arrived": False, "complaint": "no answer"}}
    assert failed({"a": met("b"), "b": met("a", a=lost)}) == {("fabric.mtu", "a"), ("fabric.mtu", "b")}


ENTRIES = st.lists(st.none() | st.integers() | st.lists(st.none() | st.integers() | st.text(max_size=3), max_size=4))


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.dictionaries(
    st.sampled_from(["error", "peers"]),
    st.none() | st.text(max_size=5) | st.dictionaries(st.sampled_from(["a", "b"]), st.none() | st.dictionaries(
        st.sampled_from(["error", "packet", "ping", "ports"]), st.none() | st.integers() | ENTRIES))
)))  # fmt: skip
def test_meetings_of_any_shape_are_read(answers: dict[str, dict[str, Any]]) -> None:
    pairs.verdicts(meeting.results(answers))
