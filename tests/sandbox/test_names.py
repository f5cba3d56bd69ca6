from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.sandbox import names


@given(st.text(min_size=1, max_size=60), st.integers(0, names.MAX_HOSTS - 1))
def test_interface_names_fit_the_kernel(directory: str, index: int) -> None:
    made = names.names(directory, "muster")
    assert len(made.bridge) <= 15
    assert len(made.veth(index)) <= 15
    assert made.veth(index).startswith(made.bridge)


def test_sandboxes_of_two_directories_or_names_never_share_an_interface() -> None:
    made = {names.names(directory, name).bridge for directory in ("/a", "/b") for name in ("x", "y", "xy")}
    assert len(made) == 6


@pytest.mark.parametrize("name", ["", "Big", "1st", "a_b", "-a", "a-", "a" * 25, "a/../b"])
def test_a_name_that_cannot_name_a_directory_or_host_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match="lower-case letters"):
        names.check_name(name)


def test_every_host_has_an_address_of_its_own_inside_the_network() -> None:
    network = "10.77.3.0/24"
    addresses = [names.host_address(network, index) for index in range(names.MAX_HOSTS)]
    assert len({*addresses, names.gateway(network)}) == names.MAX_HOSTS + 1
    assert all(ipaddress.ip_address(address) in ipaddress.ip_network(network) for address in addresses)
    assert addresses[:2] == ["10.77.3.11", "10.77.3.12"]


def test_hardware_addresses_are_local_unicast_and_differ() -> None:
    made = {names.mac(names.host_address("10.77.0.0/24", index)) for index in range(names.MAX_HOSTS)}
    assert len(made) == names.MAX_HOSTS
    assert {int(one[:2], 16) & 0b11 for one in made} == {0b10}


def test_the_first_network_that_nothing_uses_is_taken() -> None:
    assert names.free_network(names.SUPERNET, []) == "10.77.0.0/24"
    assert names.free_network(names.SUPERNET, ["10.77.0.1/24", "10.77.1.128/25", "192.0.2.2/24"]) == "10.77.2.0/24"


@pytest.mark.parametrize(
    ("supernet", "taken", "message"),
    [
        ("10.77.0.0/16", ["10.0.0.0/8"], "no free /24"),
        ("10.77.0.0/25", [], "too small"),
        ("fd00::/8", [], "not an IPv4 network"),
        ("nonsense", [], "not an IPv4 network"),
    ],
)
def test_a_range_without_room_is_refused(supernet: str, taken: list[str], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        names.free_network(supernet, taken)
