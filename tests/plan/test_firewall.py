"""Who may reach which port: every port of a group has a name and an audience."""

from __future__ import annotations

import pytest

from tests import sample_plans


def reach(gpu: str, **settings: object) -> dict[str, dict[str, list[str]]]:
    """Host -> audience -> names of its ports."""
    plan = sample_plans.plan("kimi-k2-instruct", 2, gpu, **settings)
    return {
        name: {
            audience: [opening.name for opening in host.firewall.ports(audience)]
            for audience in ("clients", "monitors", "peers")
        }
        for name, host in plan.hosts.items()
    }


def test_clients_reach_the_api_of_the_head_and_nothing_else() -> None:
    found = reach("H200")
    assert found["h200-0"] == {"clients": ["port"], "monitors": ["control_port"], "peers": ["rpc_port"]}
    assert found["h200-1"] == {"clients": [], "monitors": [], "peers": []}


def test_ray_is_for_peers_alone() -> None:
    found = reach("H800")
    assert found["h800-0"]["clients"] == ["port"]
    assert "ray_port" in found["h800-0"]["peers"]
    assert "Ray's workers" in found["h800-1"]["peers"]
    assert found["h800-1"]["clients"] == found["h800-1"]["monitors"] == []


@pytest.mark.parametrize("gpu", ["H200", "H800"])
def test_every_port_that_a_host_binds_has_an_audience(gpu: str) -> None:
    plan = sample_plans.plan("kimi-k2-instruct", 2, gpu, client_networks=["192.0.2.0/24"])
    for host in plan.hosts.values():
        named = {port for opening in host.firewall.openings for port in range(opening.first, opening.last + 1)}
        assert set(host.ports) <= named
        assert host.firewall.clients == ("192.0.2.0/24",)
        assert host.firewall.peers == ("198.51.100.1", "198.51.100.2")
