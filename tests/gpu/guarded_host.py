"""One host of a guarded group on this machine: a loopback address, a GPU, a guard, and a restart loop for systemd.

The guard, its guard.json and the children's command lines are the plan's. What a host of its own would give is put in:
its own runtime and state directory, and `-i GPU` for the questions to nvidia-smi, since both hosts' GPUs are visible.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from muster.guard.host_judge import DEVICE_FIELDS
from muster.on_host import places
from muster.plan.types import HostPlan, Plan
from tests.faults.sampler import stat, stat_fields

EMPTY_SECONDS = 30.0
ENGINE_BYTES = 600
"""Bytes kept of one line of the engine."""
KEY = "0123456789abcdef0123456789abcdef"
STANDBY_AFTER = 30.0
"""Seconds after which the next generation's process imports: late enough to leave most of the start alone."""
WORD = b"muster: "
"""How the guard's own lines begin; the engine's come through the same pipe."""
DEATH = b"illegal memory access"
"""The engine's own words when FlashMLA has read in front of its block table."""


class Host(threading.Thread):
    """Restart=always with a control group where this machine lets one be made, else by a mark in the environment."""

    def __init__(
        self,
        plan: Plan,
        host: HostPlan,
        gpus: str,
        folder: Path,
        hierarchy: Path | None,
        *,
        shared: bool = False,
        keeper: bool = False,
        standby_after: float = STANDBY_AFTER,
    ) -> None:
        """`shared`: another group runs on the same GPUs, whose processes are none of this one's business.

        `keeper`: the unit beside, whose daemons keep the weights. `standby_after`: seconds from a start until the next
        generation's process begins to import.
        """
        super().__init__(daemon=True)
        self.host, self.folder = host.name, folder / f"{host.name}{'-weights' if keeper else ''}"
        self.unit = host.beside[0] if keeper else host.units[0]
        self.restart_seconds = restart_seconds(host, self.unit)
        self.mark = f"UNIT={self.folder}-{os.getpid()}"
        self.group = hierarchy / f"muster-gpu-{host.name}" / self.unit if hierarchy else None
        self.lines: list[tuple[float, str]] = []
        """What the guards said, with the monotonic time."""
        self.death = 0.0
        """When the engine first said that a worker is dead; 0.0 while it has not."""
        self.statuses: list[int] = []
        self.engine: list[tuple[float, str]] = []
        """What the engines of the last generation logged, with the monotonic time."""
        self.generation_began = 0.0
        """When the last generation's children were started."""
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._standby_after = standby_after
        self._write(plan, host, gpus, shared=shared, keeper=keeper)
        name, value = self.mark.split("=", 1)
        self._env = {
            **os.environ, "CREDENTIALS_DIRECTORY": str(self.folder / "credentials"), name: value,
            "CUDA_VISIBLE_DEVICES": gpus,
            "SPT_NOENV": "1",  # keeps process titles out of the environment, by which processes are recognised
        }  # fmt: skip

    def _write(self, plan: Plan, host: HostPlan, gpus: str, *, shared: bool, keeper: bool) -> None:
        for name in ("run", "state", "credentials"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "credentials" / "guard-key").write_text(KEY + "\n", encoding="utf-8")
        program = ""
        for path, file in host.files.items():
            if "/guard/" in path:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_text(file.text, encoding="utf-8")
                program = str(Path(path).parent) if path.endswith("/__main__.py") else program
        name = "weights" if keeper else "guard"
        config = json.loads(own_places(host.files[f"/etc/muster/{plan.group}/{name}.json"].text, plan, host))
        config["runtime_directory"], config["state_directory"] = (
            str(self.folder / "run"),
            str(self.folder / "state"),
        )
        self.stands_by_at_last = any(process.get("standby") for process in config["processes"])
        config["settings"]["standby_after"] = self._standby_after
        smi = ["nvidia-smi", "-i", gpus]
        config["checks"]["gpu_command"] = [*smi, f"--query-gpu={','.join(DEVICE_FIELDS)}", "--format=csv,noheader"]
        apps = "--query-compute-apps=pid,process_name,used_memory,gpu_uuid"
        config["checks"]["apps_command"] = ["true"] if shared else [*smi, apps, "--format=csv,noheader"]
        if host.weights is not None:
            _keep_apart(config, host, self.folder.parent / host.name / "state")
        self.config = self.folder / "guard.json"
        self.config.write_text(json.dumps(config, indent=1), encoding="utf-8")
        python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
        self._guard = [python, "-I", program]
        self._argv = [*self._guard, "--config", str(self.config), "--"]
        for number, process in enumerate((host.weights,) if keeper and host.weights else host.processes):
            self._argv += [*(["--then"] if number else []), *_own_words(process.argv, plan, host)]
            Path(process.env["HOME"]).mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        while not self._over.is_set():
            self._begin()
            assert self._process is not None
            status = self._process.wait()
            self.statuses.append(status)
            self.empty()
            said = {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": str(status)}
            post = [*self._guard, "post", "--config", str(self.config)]
            subprocess.run(post, env={**self._env, **said}, timeout=30, check=True)
            self._over.wait(self.restart_seconds)

    def _begin(self) -> None:
        argv = self._argv
        if self.group is not None:
            self.group.mkdir(parents=True, exist_ok=True)
            argv = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self.group), *argv]
        with (self.folder / "credentials" / "guard-key").open("rb") as key:  # as systemd hands it to the unit
            self._process = subprocess.Popen(
                argv, env=self._env, stdin=key, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
            )  # fmt: skip
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with (self.folder / "log").open("ab") as out:
            for line in process.stdout:
                now = time.monotonic()
                out.write(line)
                out.flush()
                if DEATH in line and not self.death:
                    self.death = now
                _, word, text = line.partition(WORD)
                if not word:
                    self.engine.append((now, line[:ENGINE_BYTES].decode("utf-8", "replace")))
                    continue
                if text.startswith(b"starting generation"):
                    self.engine, self.generation_began = [], now
                self.lines.append((now, text.decode("utf-8", "replace").strip()[:400]))

    @property
    def waits(self) -> bool:
        """Whether nothing is to be waited for before a fault: the next generation's process stands by, if one is to."""
        said = [when for when, text in self.lines if "stands by for the next generation" in text]
        return not self.stands_by_at_last or (bool(said) and said[-1] > self.generation_began)

    def pids(self) -> list[int]:
        """Everybody of this unit, the guard too."""
        if self.group is None:
            return list(_marked(self.mark.encode()))
        try:
            return [int(word) for word in (self.group / "cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def titled(self, title: str) -> list[int]:
        """Its processes whose title begins so, the oldest first."""
        started = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                shown = Path(f"/proc/{pid}/cmdline").read_bytes()
                if shown.startswith(title.encode()):
                    started.append((stat(pid)[1], pid))
        return [pid for _, pid in sorted(started)]

    def ctl(self, word: str) -> dict[str, Any]:
        """What the guard answers at its local socket; empty where it does not."""
        argv = [*self._guard, "ctl", "--config", str(self.config), word]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        answer: dict[str, Any] = json.loads(done.stdout or "{}")
        return answer

    def cost(self) -> tuple[float, float]:
        """Seconds of processor that this guard and its helpers have taken, and the MiB it holds."""
        assert self._process is not None
        proc = Path(f"/proc/{self._process.pid}")
        pages = int((proc / "statm").read_text().split()[1])
        ticks = sum(map(int, stat_fields(self._process.pid)[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def child(self) -> int:
        """The engine's parent process: the one `vllm serve` that is the guard's own child."""
        assert self._process is not None
        guard = self._process.pid
        for pid in self.pids():
            with contextlib.suppress(OSError):
                # Helpers of the guard (nvidia-smi, journalctl) carry no generation.
                if stat(pid)[2] == guard and b"MUSTER_GENERATION=" in Path(f"/proc/{pid}/environ").read_bytes():
                    return pid
        raise RuntimeError(f"{self.host}: the guard has no child")

    def empty(self) -> None:
        """What systemd does when a unit's main process has ended: kill what is left, until nothing is."""
        until = time.monotonic() + EMPTY_SECONDS
        while left := self.pids():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > until:
                self.lines.append((time.monotonic(), f"the restart loop: {left} do not die"))
                return
            time.sleep(0.02)

    def end(self) -> None:
        """End the unit, its guard first."""
        self._over.set()
        if self._process is not None:
            self._process.kill()
        self.join(60)
        if self.group is not None:
            with contextlib.suppress(OSError):
                self.group.rmdir()
                self.group.parent.rmdir()

    def last_words(self, size: int = 4000) -> str:
        """The end of the unit's log."""
        with contextlib.suppress(OSError):
            return (self.folder / "log").read_bytes()[-size:].decode("utf-8", "replace")
        return ""


def own_places(text: str, plan: Plan, host: HostPlan) -> str:
    """Return text of a plan with a directory of this host's own for sockets: all hosts are this machine."""
    return text.replace(places.weights_run(plan.group), f"{places.RUN_WEIGHTS}/{host.name}")


def _own_words(argv: Sequence[str], plan: Plan, host: HostPlan) -> list[str]:
    words = [own_places(word, plan, host) for word in argv]
    for at, word in enumerate(words[:-1]):
        if word == "--weight-cache-health-port":
            words[at + 1] = str(_own_port(int(words[at + 1]), host))
    return words


def _own_port(port: int, host: HostPlan) -> int:
    return port + 10 * host.node_rank


def _keep_apart(config: dict[str, Any], host: HostPlan, state: Path) -> None:
    """Give a host's guards a health port of its own, and count as processes on its GPUs those that can be seen here."""
    for key in ("kept_weights", "kept_for"):
        if key in config:
            config[key]["health_port"] = _own_port(config[key]["health_port"], host)
    if "kept_for" in config:
        config["kept_for"]["state_directory"] = str(state)
        config["checks"]["ports"] = []
    listed = shlex.join(config["checks"]["apps_command"])
    seen = 'while IFS= read -r line; do [ ! -d "/proc/${line%%,*}" ] || echo "$line"; done'
    config["checks"]["apps_command"] = ["sh", "-c", f"{listed} | {seen}"]


def restart_seconds(host: HostPlan, unit: str) -> float:
    """RestartSec of one of a host's units."""
    text = host.files[f"/etc/systemd/system/{unit}"].text
    return float(next(line for line in text.splitlines() if line.startswith("RestartSec=")).partition("=")[2])


def hierarchy() -> Path | None:
    """A cgroup v2 hierarchy in which this user may make a group, or None."""
    for place in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        probe = place / f"muster-gpu-probe-{os.getpid()}"
        if (place / "cgroup.procs").exists() and (place / "cgroup.subtree_control").exists():
            with contextlib.suppress(OSError):
                probe.mkdir()
                probe.rmdir()
                return place
    return None


def _marked(mark: bytes) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
