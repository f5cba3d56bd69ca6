"""Hosts that an inventory names as leaving, and monitors, are in no plan, and are still known."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.spec import inventory, inventory_source

HOSTS = """\
hosts = (
    [("gpu-0", {"ssh_hostname": "192.0.2.1"}), ("gpu-1", {"ssh_hostname": "192.0.2.2"})],
    {"gpu": "H200", "gpus": 8},
)
"""


def load(directory: Path, text: str) -> inventory.Fleet:
    path = directory / f"mine{len(list(directory.iterdir()))}.py"  # pyinfra compiles each path once
    path.write_text(text)
    return inventory.from_path(str(path))


def test_a_host_that_leaves_is_in_no_plan(tmp_path: Path) -> None:
    assert [host.name for host in load(tmp_path, HOSTS).hosts] == ["gpu-0", "gpu-1"]
    assert [host.name for host in load(tmp_path, HOSTS + 'leaving = ["gpu-0"]\n').hosts] == ["gpu-1"]
    loaded = inventory_source.load(str(tmp_path / "mine1.py"))
    assert inventory.leaving_hosts(loaded) == ("gpu-0",)
    assert {host.name for host in loaded} == {"gpu-0", "gpu-1"}


def test_its_own_settings_count_no_more(tmp_path: Path) -> None:
    text = HOSTS.replace('"192.0.2.2"}', '"192.0.2.2", "max_num_seqs": 7}')
    with pytest.raises(Refusal, match="max_num_seqs"):
        load(tmp_path, text)
    assert load(tmp_path, text + 'leaving = ["gpu-1"]\n').settings.max_num_seqs is None


def test_somebody_has_to_stay(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="every host is leaving"):
        load(tmp_path, HOSTS + 'leaving = ["gpu-0", "gpu-1"]\n')


MONITOR = 'monitor = [("mon-0", {"ssh_hostname": "192.0.2.9", "fabric_address": "198.51.100.9"})]\n'


def test_a_monitor_is_no_host_of_the_group(tmp_path: Path) -> None:
    assert [host.name for host in load(tmp_path, HOSTS + MONITOR).hosts] == ["gpu-0", "gpu-1"]
    loaded = inventory_source.load(str(tmp_path / "mine0.py"))
    assert inventory.monitor_hosts(loaded) == {"mon-0": "198.51.100.9"}
    assert inventory.outside_hosts(loaded) == ("mon-0",)
    assert inventory.leaving_hosts(loaded) == ()


def test_a_host_of_the_group_may_be_its_monitor(tmp_path: Path) -> None:
    assert [host.name for host in load(tmp_path, HOSTS + 'monitor = ["gpu-0"]\n').hosts] == ["gpu-0", "gpu-1"]
    loaded = inventory_source.load(str(tmp_path / "mine0.py"))
    assert inventory.monitor_hosts(loaded) == {"gpu-0": "192.0.2.1"}
    assert inventory.outside_hosts(loaded) == ()


def test_a_monitor_without_an_address_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "named.py"
    path.write_text(HOSTS + 'monitor = ["mon.example"]\n')
    with pytest.raises(Refusal, match="no address of its own"):
        inventory.monitor_hosts(inventory_source.load(str(path)))
