"""Which connection gives way when the control port's slots are taken."""

from __future__ import annotations

from muster.guard.connection_slots import Slots, network_of


def test_an_address_beyond_its_bound_loses_its_own_oldest() -> None:
    slots = Slots(total=8, per_address=2)
    assert [slots.admit(name, "192.0.2.1") for name in "abc"] == [[], [], ["a"]]
    assert slots.admit("d", "192.0.2.2") == []
    assert len(slots) == 3


def test_a_full_pool_takes_from_the_address_with_most() -> None:
    slots = Slots(total=4, per_address=3)
    assert slots.admit("probe", "192.0.2.9") == []
    for name in "abc":
        slots.admit(name, "192.0.2.1")
    assert slots.admit("new", "192.0.2.2") == ["a"]
    assert "probe" in slots


def test_a_released_slot_is_free() -> None:
    slots = Slots(total=1, per_address=1)
    slots.admit("a", "192.0.2.1")
    slots.release("a")
    slots.release("a")
    assert slots.admit("b", "192.0.2.2") == []


def test_a_network_of_ipv6_is_one_address() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::2") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("") == ""
