"""A machine's own files: RDMA ports, paths, listeners, engines."""

from __future__ import annotations

import glob
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.on_host import probe_machine

from ..preflight import sample


def test_rdma_ports_are_read_from_sys(tmp_path: Path) -> None:
    port = tmp_path / "class/infiniband/mlx5_0/ports/1"
    for name, text in {
        "state": "4: ACTIVE\n",
        "phys_state": "5: LinkUp\n",
        "link_layer": "Ethernet\n",
        "gids/0": "0000:0000:0000:0000:0000:0000:0000:0000\n",
        "gids/3": "0000:0000:0000:0000:0000:ffff:c633:640b\n",
        "gid_attrs/types/3": "RoCE v2\n",
    }.items():
        (port / name).parent.mkdir(parents=True, exist_ok=True)
        (port / name).write_text(text)
    answers = sample.answers()
    answers["probe_machine"] |= probe_machine.main({"sys": str(tmp_path)})
    report = sample.report(probe_machine=answers["probe_machine"])
    assert isinstance(report.rdma, tuple)
    (found,) = report.rdma
    assert (found.device, found.port, found.state, found.physical) == ("mlx5_0", "1", "ACTIVE", "LinkUp")
    assert found.gid_types == ("RoCE v2",)


def test_paths_are_those_of_the_nearest_parent(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "weights").write_bytes(b"x" * 100_000)
    wanted = str(tmp_path / "not" / "yet" / "there")
    (found,) = probe_machine.paths({"paths": {wanted: str(tmp_path / "held")}}).values()
    assert found["device"] == tmp_path.stat().st_dev
    assert found["free"] <= found["total"]
    assert found["held"] >= 100_000
    assert found["options"]


def test_who_holds_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (found,) = probe_machine.listening({"ports": [port, 1]})["ports"]
    assert (found["port"], found["pid"]) == (port, os.getpid())
    assert found["process"]


def test_a_process_that_ends_between_the_tables_holds_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    processes = glob.iglob

    def gone(pattern: str) -> Iterator[str]:
        if server.fileno() == -1:
            return processes(pattern)
        server.close()
        return iter(())

    monkeypatch.setattr(glob, "iglob", gone)
    assert probe_machine.listening({"ports": [port]}) == {"ports": []}


def test_a_unit_runs_an_engine_when_more_than_its_guard_is_there(tmp_path: Path) -> None:
    def unit(name: str, *argv: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(["/bin/sleep", "60"] if not argv else list(argv))
        place = tmp_path / "fs/cgroup/system.slice" / name
        (place / "inner").mkdir(parents=True)
        (place / "cgroup.procs").write_text("")
        (place / "inner/cgroup.procs").write_text(f"{child.pid}\n")
        return child

    guard = tmp_path / "opt/guard" / "0123456789ab"
    guard.mkdir(parents=True)
    (guard / "__main__.py").write_text("import time; time.sleep(60)\n")
    children = [
        unit("muster-served.service"),
        unit("muster-held.service", sys.executable, "-I", str(guard), "--config", "x", "--", "vllm", "serve"),
        unit("other.service"),
    ]
    try:
        time.sleep(0.5)  # until each has its own command line
        assert probe_machine.units({"sys": str(tmp_path)}) == {"running": ["muster-served.service"]}
    finally:
        for child in children:
            child.kill()
            child.wait()
