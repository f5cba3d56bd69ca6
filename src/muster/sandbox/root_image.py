"""The root file system that every host starts from: built once from the machine's distribution and mirror."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from muster.errors import Refusal
from muster.sandbox import distro as distros
from muster.sandbox.shell import attempt, locked, run

PACKAGES = (
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libnuma1",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "systemd",
    "systemd-sysv",
    "util-linux",
)
"""What a GPU host's installer would install, and no more: a deploy must bring the rest itself.

libnuma1 is here for vLLM's CPU build alone, which does not load without it and does not bring it.
"""

MASKED = (
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-networkd-wait-online.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "console-getty.service",
    "getty@.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "motd-news.timer",
    "ssh.socket",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
)
"""Units that would touch what the machine's kernel shares with its guests, or that only cost time."""

# Part of the digest: raise it when the steps below change.
_FORMAT = 3
_SECONDS = 1800.0
_STAGES = ("Retrieving", "Extracting", "Unpacking", "Configuring")


def machine_distro() -> distros.Distro:
    """Read this machine's os-release and apt sources; see `distro.distro`."""
    sources: list[distros.Source] = []
    for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        if path.suffix == ".list" and path.is_file():
            sources += distros.one_line_sources(path.read_text())
        elif path.suffix == ".sources" and path.is_file():
            sources += distros.deb822_sources(path.read_text())
    release = distros.os_release(Path("/etc/os-release").read_text())
    mirror, suite = (os.environ.get(f"MUSTER_SANDBOX_{what}") for what in ("MIRROR", "SUITE"))
    return distros.distro(release, sources, mirror=mirror, suite=suite)


def base_name(suite: str, packages: Sequence[str] = PACKAGES) -> str:
    """Return the directory name of a base: the suite and a digest of all that goes into it."""
    what = "\n".join([str(_FORMAT), suite, *sorted(packages), *MASKED])
    return f"{suite}-{hashlib.sha256(what.encode()).hexdigest()[:10]}"


def ensure(bases: Path, say: Callable[[str], None], used: Callable[[], Collection[str]]) -> Path:
    """Return the base root file system, building it if it is not there yet.

    An interrupted build leaves no base behind: the directory gets its name when it is complete. Two builds at once
    wait for each other.

    Args:
        bases: directory of all bases.
        say: called with each line of progress.
        used: returns the bases that sandboxes are built on; other old ones are removed after a build.

    Raises:
        Refusal: the distribution is not one we know, or debootstrap failed (with its last lines).
    """
    system = machine_distro()
    done = bases / base_name(system.suite)
    if done.is_dir():
        return done
    with locked(bases / "lock"):
        if done.is_dir():
            return done
        for stale in bases.glob("*.building"):
            shutil.rmtree(stale, ignore_errors=True)
        draft = done.with_name(done.name + ".building")
        started = time.monotonic()
        say(f"building the hosts' root file system: {system.id} {system.suite} from {system.main.uri}")
        _debootstrap(system, draft, done.with_name(done.name + ".log"), say)
        _finish(draft, system)
        draft.rename(done)
        for other in bases.glob(f"{system.suite}-*"):
            if other.is_dir() and other != done and str(other) not in used():
                shutil.rmtree(other, ignore_errors=True)
        say(f"root file system built in {time.monotonic() - started:.0f} s, kept in {done}")
    return done


def _debootstrap(system: distros.Distro, target: Path, log: Path, say: Callable[[str], None]) -> None:
    argv = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    argv.append(f"--components={','.join(system.main.components)}")
    if system.main.signed_by and Path(system.main.signed_by).is_file():
        argv.append(f"--keyring={system.main.signed_by}")
    argv += [system.suite, str(target), system.main.uri]
    deadline = time.monotonic() + _SECONDS
    with (
        log.open("w") as out,
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        stage = -1
        for line in process.stdout or ():
            out.write(line)
            words = line.split()
            if len(words) > 1 and words[1] in _STAGES[stage + 1 :]:
                stage = _STAGES.index(words[1])
                say(f"  debootstrap: {words[1].lower()}")
            if time.monotonic() > deadline:
                process.kill()
    if process.returncode != 0:
        raise Refusal(
            f"debootstrap of {system.suite} from {system.main.uri} ended with status {process.returncode}",
            fix=f"read {log}; MUSTER_SANDBOX_MIRROR names another mirror",
            detail="\n".join(log.read_text().splitlines()[-12:]),
        )


def _finish(tree: Path, system: distros.Distro) -> None:
    """Turn a fresh debootstrap into a base: no identity, no caches, sshd on, no unit that disturbs this machine."""
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for name in ("etc/machine-id", "etc/hostname", "etc/resolv.conf", "var/lib/dbus/machine-id"):
        (tree / name).unlink(missing_ok=True)
    for archive in (tree / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    sources = tree / "etc/apt/sources.list.d"
    for entry in sources.glob("*"):
        entry.unlink()
    lines = "".join(source.line() + "\n" for source in system.sources)
    (tree / "etc/apt/sources.list").write_text(lines)
    units = tree / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    run(["systemctl", f"--root={tree}", "enable", "ssh.service"])
    # A test reads what was logged before a reboot.
    journal = units.parent / "journald.conf.d"
    journal.mkdir(exist_ok=True)
    lines = "[Journal]\nStorage=persistent\nSystemMaxUse=200M\nRateLimitBurst=0\n"
    (journal / "sandbox.conf").write_text(lines)
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.is_file():
        shutil.copyfile(bundle, tree / "etc/ssl/certs/ca-certificates.crt")
    attempt(["chroot", str(tree), "python3", "-m", "compileall", "-q", "/usr/lib/python3"], timeout=120)
