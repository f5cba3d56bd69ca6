"""One host: its overlay root, the loop that supervises its systemd-nspawn, its processes."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from muster.sandbox.shell import attempt, run, wait_for, write

# A host may do what root may on a real machine, except set the clock and load modules: those are this machine's.
# IPAddressDeny= and DevicePolicy= need bpf, which nspawn's own list of system calls leaves out.
_NSPAWN = (
    "--boot",
    "--register=no",
    "--keep-unit",
    "--quiet",
    "--capability=all",
    "--drop-capability=CAP_SYS_TIME,CAP_SYS_MODULE",
    "--system-call-filter=bpf @keyring",
    "--resolv-conf=off",
    "--timezone=off",
    "--link-journal=no",
    "--console=pipe",
)

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Status 133: the host requested a reboot, which nspawn without machined leaves to its caller. The cable is
# down while the host boots, as on a real machine.
_LOOP = """\
#!/bin/sh
# One life of a sandbox host: starts it again when it reboots from inside, ends when it powers off.
exec >> {console} 2>&1 < /dev/null
cd /
join() {{
  for base in {cgroups}; do
    mkdir -p "$base/$1"
    # The host's own systemd can limit memory where the machine's hands the controllers on.
    for level in "${{base%/*}}" "$base"; do
      for controller in cpu io memory pids; do
        echo "+$controller" > "$level/cgroup.subtree_control"
      done
    done 2> /dev/null
    echo 0 > "$base/$1/cgroup.procs"
  done
}}
join loop
echo $$ > {pid}
while :; do
  ip link set {cable} up
  (join run; exec {command}) < /dev/null
  status=$?
  ip link set {cable} down
  echo "{machine}: nspawn ended with status $status"
  [ $status = 133 ] || exit $status
done
"""


@dataclass(frozen=True)
class NspawnHost:
    """One sandbox host, which can be switched on and off.

    Args:
        directory: of this host alone: upper/, work/, root/, console.log.
        base: root file system below its overlay.
        machine: name of its namespaces and control groups.
        cable: this machine's end of its network cable.
        hostname: its own name.
        binds: directories of this machine that the host sees at the same path; value True: writable.
    """

    directory: Path
    base: Path
    machine: str
    cable: str
    hostname: str
    binds: Mapping[str, bool]

    @property
    def tree(self) -> Path:
        """Its root file system as this machine sees it."""
        return self.directory / "root"

    @property
    def console(self) -> Path:
        """Its console output, of all its boots."""
        return self.directory / "console.log"

    @property
    def _pid_file(self) -> Path:
        return self.directory / "loop.pid"

    def mount(self) -> None:
        """Mount its root, unless it is mounted."""
        for name in ("upper", "work", "root"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        if not self.tree.is_mount():
            layers = f"lowerdir={self.base},upperdir={self.directory}/upper,workdir={self.directory}/work"
            run(["mount", "-t", "overlay", "muster-sandbox", "-o", layers, str(self.tree)])

    def unmount(self) -> None:
        """Unmount its root, even one mounted several times or held by a dying process."""
        while self.tree.is_mount():
            run(["umount", "--lazy", str(self.tree)])

    def start(self) -> None:
        """Switch it on, detached from this process, unless it is on."""
        if self.loop() is not None:
            return
        self.kill_leftovers()
        self.mount()
        command = ["nsenter", f"--net=/run/netns/{self.machine}", *self._environment(), *self._nspawn()]
        script = self.directory / "loop.sh"
        text = _LOOP.format(
            cgroups=" ".join(shlex.quote(str(base)) for base in self._cgroups()),
            pid=shlex.quote(str(self._pid_file)),
            cable=self.cable,
            command=shlex.join(command),
            machine=self.machine,
            console=shlex.quote(str(self.console)),
        )
        write(script, text, 0o755)
        self._pid_file.unlink(missing_ok=True)
        run(["setsid", "--fork", "/bin/sh", str(script)])
        wait_for(f"start of {self.machine}", lambda: self.loop() is not None, timeout=10)

    def _environment(self) -> list[str]:
        # BPF-based unit settings need the unified hierarchy, whatever this machine has.
        return [
            "env",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1",
            # The host may change the settings of its own network namespace.
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network",
            # /tmp is on the root, as on a machine with a disk, and not in this machine's memory.
            "SYSTEMD_NSPAWN_TMPFS_TMP=0",
            "SYSTEMD_LOG_LEVEL=warning",
        ]

    def _nspawn(self) -> list[str]:
        names = [f"--directory={self.tree}", f"--machine={self.machine}", f"--hostname={self.hostname}"]
        binds = [f"--bind{'' if rw else '-ro'}={path}" for path, rw in sorted(self.binds.items())]
        return ["systemd-nspawn", *names, *_NSPAWN, *binds]

    def loop(self) -> int | None:
        """Return the process id of its supervising loop; None when it is off."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if str(self.directory / "loop.sh").encode() in command else None

    def init(self) -> int | None:
        """Return the id that the host's own process 1 has on this machine; None when it is off."""
        for nspawn in self._nspawns():
            for child in _children(nspawn):
                if _namespace_pid(child) == 1:
                    return child
        return None

    def _nspawns(self) -> Iterator[int]:
        argument = f"--machine={self.machine}".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argument in command and command[0].endswith(b"systemd-nspawn"):
                yield int(entry.name)

    def power_off(self) -> None:
        """Cut its power: kill its loop and all its processes at once."""
        loop = self.loop()
        if loop is not None:
            _kill(loop)
        self.kill_leftovers()
        self._pid_file.unlink(missing_ok=True)

    def kill_leftovers(self) -> None:
        """Kill what an earlier life of this host left behind: nspawn and the host's processes."""
        for _ in range(50):
            alive = list(self._nspawns())
            init = self.init()
            for pid in [*([init] if init else []), *alive]:
                _kill(pid)
            if not alive and not self._cgroup_pids():
                break
            for pid in self._cgroup_pids():
                _kill(pid)
            time.sleep(0.1)
        for base in self._cgroups():
            # Deepest first: a control group with children cannot be removed.
            for path in sorted(base.rglob("*"), reverse=True) if base.is_dir() else []:
                if path.is_dir():
                    _rmdir(path)
            _rmdir(base)
            _rmdir(base.parent)

    def _cgroups(self) -> list[Path]:
        return [mount / "muster-sandbox" / self.machine for mount in cgroup_mounts()]

    def _cgroup_pids(self) -> set[int]:
        pids: set[int] = set()
        for base in self._cgroups():
            for procs in base.rglob("cgroup.procs") if base.is_dir() else []:
                try:
                    pids.update(int(word) for word in procs.read_text().split())
                except OSError:
                    continue
        return pids - {os.getpid()}

    def enter(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host without SSH, through its namespaces."""
        init = self.init()
        if init is None:
            return subprocess.CompletedProcess(list(argv), 255, "", f"{self.hostname} is switched off")
        inside = ["nsenter", f"--target={init}", "--all", "--root", "--wd"]
        clean = ["env", "-i", "HOME=/root", f"PATH={_PATH}"]
        return attempt([*inside, *clean, *argv], stdin=stdin, timeout=timeout)


def cgroup_mounts() -> list[Path]:
    """Return where this machine's unified and systemd control group hierarchies are mounted."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(None, 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            mounts.append(Path(left.split()[4]))
    return mounts


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _namespace_pid(pid: int) -> int | None:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except OSError:
        pass
    return None


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _rmdir(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()
