from __future__ import annotations

from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.sandbox import as_inventory, state_file
from muster.sandbox.state_file import Host, State


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MUSTER_SANDBOX_DIR", str(tmp_path))
    monkeypatch.delenv("MUSTER_SANDBOX", raising=False)
    return tmp_path


def test_hosts_are_given_with_strict_host_keys_and_no_host_in_reach(directory: Path) -> None:
    host = Host("node0", "10.77.0.11", "H800", 8, 0)
    state_file.save(state_file.place("muster"), State("muster", "10.77.0.0/24", "/base", (host,)))
    assert as_inventory.hosts() == [
        (
            "node0",
            {
                "ssh_hostname": "10.77.0.11",
                "ssh_port": 22,
                "ssh_user": "root",
                "ssh_key": f"{directory}/muster/key",
                "ssh_known_hosts_file": f"{directory}/muster/known_hosts",
                "ssh_strict_host_key_checking": "yes",
                "gpu": "H800",
                "gpus": 8,
                "fabric_address": "10.77.0.11",
                "fabric_interface": "fabric0",
            },
        )
    ]


def test_a_sandbox_that_is_not_up_says_what_to_type(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSTER_SANDBOX", "demo")
    with pytest.raises(Refusal, match=r"(?s)'demo' is not up.*muster sandbox up --name demo"):
        as_inventory.hosts()


def test_a_state_file_that_is_not_ours_is_refused(directory: Path) -> None:
    where = state_file.place("muster")
    where.directory.mkdir()
    where.state_file.write_text('{"name": "muster"}')
    with pytest.raises(Refusal, match="muster sandbox down"):
        state_file.load(where)
