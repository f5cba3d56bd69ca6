"""Guards as plain processes on loopback, each under a small stand-in for systemd: empty the group, then start again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from muster import guard
from tests.free_port import free_port

ENGINE = Path(__file__).parent / "fake_engine.py"
FAST = {
    "poll_interval": 0.3,
    "report_timeout": 2.0,
    # A busy machine keeps a process waiting for seconds: that is no silence, and no canary without an answer.
    "silence_timeout": 8.0,
    "canary_idle": 0.5,
    "canary_timeout": 4.0,
    "canary_retry": 0.2,
    "proof_fresh": 6.0,
    "metrics_interval": 0.2,
    "drain_seconds": 1.0,
    "drain_margin": 0.5,
    "check_interval": 0.2,
    "backoff_base": 0.5,
    "backoff_max": 2.0,
}
KEY = "0123456789abcdef0123456789abcdef"
API_KEY = "secret-of-the-engine"
RESTART = 0.3


def wait_for(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true value of `what`. The limit is for a hung test, not a bound under test."""
    until = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < until, f"not within {seconds:g} s"
        time.sleep(0.05)


class Unit(threading.Thread):
    """Restart=always with a cgroup, as far as a plain process can have one: by the guard's mark in /proc."""

    def __init__(self, host: str, argv: list[str], env: dict[str, str], log: Path) -> None:
        super().__init__(daemon=True)
        self.host, self.argv, self.env, self.log = host, argv, env, log
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.statuses: list[int] = []
        self._over = threading.Event()
        self._starting = threading.Lock()
        self.start()

    def run(self) -> None:
        while self._begin():
            assert self.process is not None
            self.statuses.append(self.process.wait())
            self.empty()
            self._over.wait(RESTART)

    def _begin(self) -> bool:
        """Start the guard, unless the unit is over: `end` must never miss one that is just being started."""
        with self._starting:
            if self._over.is_set():
                return False
            with self.log.open("ab") as out:
                self.process = subprocess.Popen(
                    self.argv, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
                )
            self.starts += 1
            return True

    def empty(self) -> None:
        until = time.monotonic() + 30
        while left := list(below(self.env["UNIT"])):
            for pid, _ in left:
                # Two threads may do this at once, and one is the first.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < until, f"{self.host}: {left} do not die"
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def end(self) -> None:
        self._over.set()
        with self._starting:
            if self.process is not None:
                self.process.kill()
        self.join(60)
        assert not self.is_alive(), f"{self.host}: its unit does not end"
        self.empty()


def below(unit: str) -> Iterator[tuple[int, str]]:
    """Living processes of a unit other than its guard, with their generation."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            env = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        # Everybody's processes are read here, and their environments need not be text.
        values = dict(pair.decode("utf-8", "replace").partition("=")[::2] for pair in env if b"=" in pair)
        if values.get("UNIT") == unit and "MUSTER_GENERATION" in values and state != "Z":
            yield int(entry.name), values["MUSTER_GENERATION"]


class Cluster:
    """`size` guards on 127.0.0.1, the first one the head; `run` files below one folder."""

    def __init__(self, folder: Path, size: int, python: str = sys.executable, **changes: Any) -> None:
        self.folder = folder
        self.size = size
        self.python = python
        self.control_port, self.endpoint = free_port(), free_port()
        self.hosts = [f"h{index}" for index in range(size)]
        self.package = folder / "package"
        for name, text in guard.program_files().items():
            path = self.package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        credentials = folder / "credentials"
        credentials.mkdir()
        (credentials / "guard-key").write_text(KEY + "\n")
        (credentials / "api-key").write_text(f"VLLM_API_KEY={API_KEY}\n")
        # A script, as the engine's program is one.
        self.engine = folder / "engine"
        self.engine.write_text(f"#!{sys.executable}\n{ENGINE.read_text()}")
        self.engine.chmod(0o755)
        self.work = folder / "work"
        self.work.mkdir()
        self.units: dict[str, Unit] = {}
        for host in self.hosts:
            for kind in ("run", "state"):
                (folder / host / kind).mkdir(parents=True)
            self.configure(host, **changes)
        self.mark = f"{folder}-{os.getpid()}"

    def configure(self, host: str, **changes: Any) -> None:
        data: dict[str, Any] = {
            "version": 1,
            "group": "g",
            "recipe": "r",
            "digest": "plan-1",
            "engine": "0.32.0",
            "unit": f"muster-{self.folder.name}-{host}.service",
            "host": host,
            "head": {"host": "h0", "address": "127.0.0.1", "control_port": self.control_port},
            "members": [
                {"host": name, "address": f"127.0.0.{1 + rank}", "node_rank": rank, "dp_ranks": [rank]}
                for rank, name in enumerate(self.hosts)
            ],
            "endpoint": {"address": "127.0.0.1", "port": self.endpoint},
            "served_model_name": "m",
            "processes": [{"name": "vllm", "env": {}}],
            "settings": FAST,
            "runtime_directory": str(self.folder / host / "run"),
            "state_directory": str(self.folder / host / "state"),
        }
        data.update(changes)
        (self.folder / host / "guard.json").write_text(json.dumps(data))

    def config(self, host: str) -> str:
        return str(self.folder / host / "guard.json")

    def command(self, host: str) -> list[str]:
        child = [str(self.engine), str(self.work), host]
        if host == "h0":
            child += [str(self.endpoint), str(self.size)]
        return [self.python, "-I", str(self.package), "--config", self.config(host), "--", *child]

    def start(self, *hosts: str) -> None:
        for host in hosts or self.hosts:
            self.units[host] = Unit(host, self.command(host), self.environment(host), self.folder / host / "log")

    def environment(self, host: str) -> dict[str, str]:
        """What the host's unit gives its guard."""
        mark = {"UNIT": f"{self.mark}-{host}"}
        return {**os.environ, "CREDENTIALS_DIRECTORY": str(self.folder / "credentials"), **mark}

    def ctl(self, host: str, *words: str) -> dict[str, Any]:
        argv = [self.python, "-I", str(self.package), "ctl", "--config", self.config(host), *words]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert result.stderr == "", result.stderr
        answer: dict[str, Any] = json.loads(result.stdout)
        assert (result.returncode == 1) == ("error" in answer)
        return answer

    def get(self, path: str, token: str = "") -> tuple[int, str]:
        """Status 0 when nothing answers."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.control_port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def group(self) -> dict[str, Any]:
        status, text = self.get("/status", API_KEY)
        return json.loads(text) if status == 200 else {}

    def ready(self) -> dict[str, Any]:
        """The group's status once /ready answers 200; times out with every guard's log."""
        try:
            wait_for(lambda: self.get("/ready")[0] == 200)
        except AssertionError:
            logs = "\n".join(f"{host}: {self.log(host)[-3000:]}" for host in self.hosts)
            raise AssertionError(f"{self.get('/ready')}\n{logs}") from None
        return self.group()

    def log(self, host: str) -> str:
        return (self.folder / host / "log").read_text()

    def alive(self) -> dict[str, list[tuple[int, str]]]:
        return {host: list(below(f"{self.mark}-{host}")) for host in self.hosts}

    def generations(self) -> set[str]:
        return {generation for pairs in self.alive().values() for _, generation in pairs}

    def guard(self, host: str) -> int:
        """The pid of the host's guard."""
        process = self.units[host].process
        assert process is not None
        return process.pid

    def child(self, host: str) -> int:
        """The pid of the host's child proper."""
        alive = {pid for pid, _ in self.alive()[host]}
        (pid,) = [
            record["pid"]
            for path in self.work.glob(f"{host}-child-*.json")
            if (record := json.loads(path.read_text()))["pid"] in alive
        ]
        return int(pid)

    def end(self) -> None:
        """End every unit, also when one of them does not end well."""
        problems = []
        for unit in self.units.values():
            try:
                unit.end()
            except AssertionError as problem:
                problems.append(str(problem))
        assert not problems, problems
