"""The processes below a guard: found in every hierarchy, killed to the last, missed when gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from muster.guard import cgroup
from muster.guard.cgroup import Fence, Titles

from .loopback import wait_for

UNIT = "muster-g.service"


@pytest.mark.parametrize(
    ("lines", "folder"),
    [
        ("0::/system.slice/muster-g.service\n", "system.slice/muster-g.service"),
        ("4:memory:/x\n0::/system.slice/muster-g.service/inner\n", "unified/system.slice/muster-g.service"),
        ("1:name=systemd:/system.slice/muster-g.service\n0::/\n", "systemd/system.slice/muster-g.service"),
        ("0::/user.slice/session-1.scope\n", ""),
        ("0::/system.slice/muster-other.service\n", ""),
    ],
    ids=["v2", "hybrid", "v1", "a shell", "another unit"],
)
def test_the_cgroup_is_found_in_whichever_hierarchy_holds_it(tmp_path: Path, lines: str, folder: str) -> None:
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(lines)
    if folder:
        (root / folder / "deep").mkdir(parents=True)
        (root / folder / "cgroup.procs").write_text(f"{os.getpid()}\n41\n")
        (root / folder / "deep" / "cgroup.procs").write_text("42\n43\n")
        for pid, letter in ((41, "S"), (42, "D"), (43, "Z")):
            (proc / str(pid)).mkdir()
            (proc / str(pid) / "stat").write_text(f"{pid} (a) b) {letter} 1 1")
    fence = Fence(UNIT, "i", str(root), str(proc))
    assert fence.is_cgroup is bool(folder)
    if folder:
        assert fence.pids() == [41, 42]
        fence.helpers = {42}
        assert fence.pids() == [41]


def test_orphans_in_sessions_of_their_own_are_killed(mark: str) -> None:
    script = (
        "import os, time\nfor _ in range(3):\n os.fork()\n"
        " os.setsid() if os.getpid() != os.getsid(0) else 0\ntime.sleep(600)"
    )
    started = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, cgroup.INSTANCE: mark})
    fence = Fence("", mark)
    wait_for(lambda: len(fence.pids()) == 8)
    assert len(fence.describe()) == 8
    assert asyncio.run(fence.kill(10)) == []
    assert started.wait(10) == -signal.SIGKILL


def test_a_missing_engine_process_is_noticed_by_the_second_scan(tmp_path: Path) -> None:
    def here(pid: int, title: str, begun: int) -> None:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(title.encode() + b"\0")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (x) S " + " ".join(["0"] * 18) + f" {begun} 0")

    pids: list[int] = []
    titles = Titles(("VLLM::",), lambda: pids, str(tmp_path))
    here(10, "VLLM::EngineCore_DP0", 100)
    here(11, "VLLM::EngineCore_DP0", 200)  # Forked by the first: carries its title, and ends when it likes.
    here(12, "python3 -m compile_worker", 150)
    pids += [12, 11, 10]
    assert titles.scan() == ""
    pids.remove(12)
    pids.remove(11)
    assert [titles.scan() for _ in range(3)] == ["", "", ""]
    pids.remove(10)
    assert titles.scan() == ""
    assert titles.scan() == "VLLM::EngineCore_DP0 (pid 10)"


def test_the_memory_of_a_process_stuck_in_a_driver_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "10").mkdir()
    (tmp_path / "10" / "stat").write_text("10 (VLLM::Worker (1)) D 1 1")
    # Nobody writes to it: whoever opens it waits, as for the lock of a stuck process's memory.
    os.mkfifo(tmp_path / "10" / "cmdline")
    reader = threading.Thread(target=lambda: titles_read.append(cgroup.title(10, str(tmp_path))), daemon=True)
    titles_read: list[str] = []
    reader.start()
    reader.join(5)
    assert titles_read == ["[VLLM::Worker (1)]"]


def test_without_prefixes_no_process_is_watched() -> None:
    titles = Titles((), lambda: [os.getpid()])
    assert [titles.scan(), titles.scan()] == ["", ""]
