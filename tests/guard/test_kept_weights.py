"""Weights that daemons keep: an engine waits for them, and outlives their loss without a second copy beside its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.guard import kept_weights, start_checks
from muster.guard.group_settings import Checks, KeptFor, KeptWeights
from tests.free_port import free_port

from .loopback import FAST, Cluster, wait_for

DAEMONS = Path(__file__).parent / "fake_daemons.py"
GROUP = f"g{os.getpid()}"  # of this run alone: guards look for its processes on the whole machine
KEPT = f"{GROUP}-weights"
PATIENT = {**FAST, "silence_timeout": 40.0, "canary_timeout": 20.0, "proof_fresh": 30.0}
"""Two groups of guards share the machine's cores: a life that ends by itself would be counted here."""


class Daemons(Cluster):
    """The guards of the daemons, beside those of an engine's cluster."""

    def __init__(self, folder: Path, engine: Cluster) -> None:
        self.mapping = engine
        self.health = {host: free_port() for host in engine.hosts}
        super().__init__(folder, engine.size)
        for host in self.hosts:
            self.plan(host, "key-1")

    def plan(self, host: str, key: str) -> None:
        """Give a host's daemons and engine a plan with this key."""
        state = str(self.mapping.folder / host / "state")
        where: dict[str, Any] = {"group": GROUP, "health_port": self.health[host], "state_directory": state}
        where["sockets"] = self.sockets(host, key)
        self.configure(
            host, group=KEPT, digest=key, endpoint=None, kept_for=where, settings={**PATIENT, "drain_seconds": 0},
            processes=[{"name": "weights", "env": {}}],
        )  # fmt: skip
        used = {"group": KEPT, "unit": "w.service", "health_port": self.health[host]}
        used["sockets"] = self.sockets(host, key)
        self.mapping.configure(host, group=GROUP, digest=f"plan of {key}", kept_weights=used, settings=PATIENT)

    def sockets(self, host: str, key: str) -> str:
        return str(self.folder / host / "run" / "sockets" / key)

    def command(self, host: str) -> list[str]:
        guard = [self.python, "-I", str(self.package), "--config", self.config(host), "--"]
        key = json.loads(Path(self.config(host)).read_text())["digest"]
        where = [str(self.health[host]), self.sockets(host, key)]
        return [*guard, sys.executable, str(DAEMONS), str(self.work), host, str(self.size), *where]

    def environment(self, host: str) -> dict[str, str]:
        digest = json.loads(Path(self.config(host)).read_text())["digest"]
        return {**super().environment(host), start_checks.DIGEST: digest}

    def reload(self, host: str) -> None:
        """Have systemd read the host's unit again: the guard's next life is of it."""
        self.units[host].argv, self.units[host].env = self.command(host), self.environment(host)

    def lives(self) -> int:
        """How often daemons were started, on all hosts."""
        return len(list(self.work.glob("*-daemons-*.json")))

    def lose(self, host: str) -> None:
        """One daemon of a host is gone, until the next of its launchers is there."""
        lost, before = self.work / f"{host}.lost", self.child(host)
        lost.touch()
        wait_for(lambda: before not in {pid for pid, _ in self.alive()[host]})
        lost.unlink()

    def child(self, host: str) -> int:
        alive = {pid for pid, _ in self.alive()[host]}
        return next(iter(alive))


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Daemons]:
    engine = Cluster(tmp_path / "engine", 2)
    daemons = Daemons(tmp_path / "daemons", engine)
    try:
        yield daemons
    finally:
        engine.end()
        daemons.end()


@pytest.fixture
def folders(tmp_path: Path) -> None:
    for name in ("engine", "daemons"):
        (tmp_path / name).mkdir()


pytestmark = pytest.mark.usefixtures("folders")


def blocked(cluster: Cluster, host: str = "h1") -> str:
    members = cluster.group().get("members", [])
    return "".join(str(member["blocked"]) for member in members if member["host"] == host)


def test_weights_outlive_the_engine_and_an_engine_their_daemons(kept: Daemons) -> None:
    engine = kept.mapping
    engine.start()
    wait_for(lambda: blocked(engine).startswith("weights are not kept here yet: no daemon answers"))
    assert not any(engine.alive().values())
    wait_for(lambda: blocked(engine, "h0").startswith("weights are "))
    # Nobody waits for a load in the time that a start takes: the one who asks for /ready does.
    assert "error" not in engine.ctl("h0", "resume", "--wait", "60")
    kept.start()
    first = engine.ready()
    assert (kept.ready()["phase"], kept.lives()) == ("running", 2)
    # The engine's generation turns without the daemons.
    os.kill(engine.child("h1"), signal.SIGKILL)
    wait_for(lambda: first["generation"] not in engine.generations())
    second = engine.ready()
    assert second["generation"] != first["generation"]
    assert kept.lives() == 2
    # A daemon is lost: all of them go, the engine serves on, and no other loads beside what it maps.
    kept.lose("h1")
    wait_for(lambda: blocked(kept).startswith("weights are no longer kept: "))
    assert not any(kept.alive().values())
    assert engine.ready()["generation"] == second["generation"]
    assert kept.lives() == 2
    # When that engine ends, all load once, together, and the next engine maps what they hold.
    assert "answer" in engine.ctl("h0", "restart")
    wait_for(lambda: second["generation"] not in engine.generations())
    engine.ready()
    assert (kept.ready()["phase"], kept.lives()) == ("running", 4)


def test_a_stop_frees_the_gpus_and_resume_loads_again(kept: Daemons) -> None:
    engine = kept.mapping
    kept.start()
    engine.start()
    engine.ready()
    assert "answer" in engine.ctl("h0", "stop", "--wait", "30")
    wait_for(lambda: not any(kept.alive().values()))
    wait_for(lambda: blocked(kept, "h0").startswith("stopped by an operator; "))
    assert kept.group()["restarts"] == 0
    wait_for(lambda: "answer" in engine.ctl("h0", "resume"))  # it may be between two lives
    engine.ready()
    assert kept.lives() == 4


def test_another_key_is_another_load(kept: Daemons) -> None:
    engine = kept.mapping
    kept.start()
    engine.start()
    engine.ready()
    assert "answer" in engine.ctl("h0", "stop", "--wait", "30")
    starts = {host: kept.units[host].starts for host in kept.hosts}
    for host in kept.hosts:
        kept.plan(host, "key-2")
    # Until systemd has read the new units, their guards end again and again.
    wait_for(lambda: all(kept.units[host].starts > starts[host] + 1 for host in kept.hosts))
    for host in kept.hosts:
        kept.reload(host)
    wait_for(lambda: "answer" in engine.ctl("h0", "resume"))  # it may be between two lives
    engine.ready()
    assert kept.group()["restarts"] == 0
    left = [path.name for path in Path(kept.sockets("h1", "key-2")).parent.rglob("*")]
    assert sorted(left) == ["key-2", "vllm_weight_cache_h1.sock"]
    assert kept.lives() == 4


@pytest.mark.parametrize(("health", "sockets", "said"), [
    (200, ("a.sock", "b.sock", "a_draft.sock"), ""),
    (200, ("a.sock", "a_draft.sock", "a.sock.lock"), "weights are kept on 1 of 2 GPUs for this plan"),
    (200, None, "weights are kept for another plan: "),
    (503, ("a.sock", "b.sock"), "weights are not kept here yet: the daemons' /health answers 503"),
    (None, ("a.sock", "b.sock"), "weights are not kept here yet: no daemon answers"),
])  # fmt: skip
def test_an_engine_starts_where_daemons_serve_its_key(
    tmp_path: Path, health: int | None, sockets: tuple[str, ...] | None, said: str
) -> None:
    if sockets is not None:
        (tmp_path / "key").mkdir()
        for name in sockets:
            (tmp_path / "key" / name).touch()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(f"HTTP/1.1 {health} -\r\n\r\n".encode())
        writer.close()

    async def asked() -> str:
        port = free_port()
        server = await asyncio.start_server(answer, "127.0.0.1", port) if health else None
        try:
            return await kept_weights.unserved(KeptWeights(KEPT, "w.service", port, str(tmp_path / "key")), 2)
        finally:
            if server is not None:
                server.close()

    reason = asyncio.run(asked())
    assert reason.startswith(said)
    assert bool(reason) == bool(said)


def child(**env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], **env})


def test_daemons_may_hold_the_gpus_and_strangers_may_not(tmp_path: Path) -> None:
    name = f"t{os.getpid()}-{time.monotonic_ns()}"
    keeper = child(MUSTER_GROUP=name, MUSTER_GENERATION="1")
    stranger = child(MUSTER_GROUP="other", MUSTER_GENERATION="1")
    try:
        wait_for(lambda: kept_weights.processes_of(name) == [keeper.pid])

        def in_use(*pids: int) -> str:
            rows = "".join(f"{pid}, python, 12000 MiB, GPU-0\n" for pid in pids)
            listed = ("echo", "0, GPU-0, 00000000:00:06.0, N/A, N/A")
            checks: Any = Checks(gpus=1, gpu_command=listed, apps_command=("printf", rows), beside=name)
            return asyncio.run(start_checks.gpus(checks, 5.0)).problem

        assert in_use(keeper.pid) == ""
        assert in_use(keeper.pid, stranger.pid).startswith("1 compute processes hold GPUs, needed none")
        assert kept_weights.blocked(KeptFor(name, 1, str(tmp_path), str(tmp_path))).startswith(
            "weights are no longer kept: 1 "
        )
        assert kept_weights.blocked(KeptFor("nobody", 1, str(tmp_path), str(tmp_path))) == ""
    finally:
        for process in (keeper, stranger):
            process.kill()
            process.wait()
