"""What several host programs need: tools with a deadline, units as systemd shows them, files written whole."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

# sysctl, ip and nvidia-smi lie outside the PATH of a plain SSH session on some distributions.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNIT_KEYS = "Id,LoadState,ActiveState,SubState,Result,MainPID,NRestarts,UnitFileState,InvocationID,NeedDaemonReload"


def environment() -> dict[str, str]:
    """Return the environment of every tool that a program starts: English, and the administrators' directories."""
    return {**os.environ, "PATH": os.environ.get("PATH", "") + ":" + _PATH, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}


def say(line: str) -> None:
    """Print one line of progress."""
    print(line, flush=True)


def run(argv: Sequence[str], seconds: float = 20) -> tuple[int, str]:
    """Run a tool and return (exit status, output with errors after it).

    Args:
        argv: the command.
        seconds: how long it may take. A tool that hangs in the kernel is left behind, not waited for.

    A tool that is missing answers 127, one that took too long 124.
    """
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()
        )
    except OSError as error:
        return 127, f"{argv[0]}: {error.strerror}"
    try:
        output, _ = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        return 124, f"{argv[0]} did not answer within {seconds:.0f} s"
    return child.returncode, output.decode("utf-8", "replace")


def must(argv: Sequence[str], seconds: float = 60) -> str:
    """Run a tool that has to succeed and return its output.

    Raises:
        OSError: it failed; the message holds the command and its last lines.
    """
    status, output = run(argv, seconds)
    if status:
        tail = " / ".join(output.strip().splitlines()[-5:])
        raise OSError(f"`{' '.join(argv)}` ended with {status}: {tail}")
    return output


def units(names: Sequence[str]) -> dict[str, Json]:
    """Return {unit: {property: value}} as systemd shows it, with the digest that the running main process carries."""
    if not names:
        return {}
    found = {}
    for block in must(["systemctl", "show", "--property=" + UNIT_KEYS, "--", *names]).strip().split("\n\n"):
        shown = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[shown.get("Id", "")] = {
            "load": shown.get("LoadState", ""),
            "active": shown.get("ActiveState", ""),
            "sub": shown.get("SubState", ""),
            "result": shown.get("Result", ""),
            "main_pid": int(shown.get("MainPID") or 0),
            "restarts": int(shown.get("NRestarts") or 0),
            "enabled": shown.get("UnitFileState", "") == "enabled",
            "invocation": shown.get("InvocationID", ""),
            "reload": shown.get("NeedDaemonReload", "") == "yes",
            "digest": running_digest(int(shown.get("MainPID") or 0)),
        }
    return found


def running_digest(pid: int) -> str | None:
    """Return the plan's digest in a process's environment, or None: a unit may still run what it was started with."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as handle:
            pairs = handle.read().split(b"\0")
    except OSError:
        return None
    for pair in pairs:
        if pair.startswith(b"MUSTER_DIGEST="):
            return pair.split(b"=", 1)[1].decode("ascii", "replace")
    return None


def journal(unit: str, lines: int, invocation: str = "") -> list[str]:
    """Return the last lines that a unit wrote, oldest first; only those of one start when its invocation is given."""
    which = ["_SYSTEMD_INVOCATION_ID=" + invocation] if invocation else ["--unit=" + unit]
    _, output = run(["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={lines}", *which])
    return [line.rstrip()[:500] for line in output.splitlines() if line.strip()]


def sha256(path: str) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def read_json(path: str) -> Any:
    """Return a JSON file's value, or None where there is no such file or it is broken."""
    try:
        with open(path, encoding="utf-8") as handle:
            return json.load(handle)
    except (OSError, ValueError):
        return None


def write_whole(path: str, data: bytes, mode: int = 0o644, owner: int = -1, group: int = -1) -> None:
    """Write bytes so that a reader, or a power cut, finds the old file or the new one and nothing between.

    Raises:
        OSError: a full disk or a missing directory; the old file is untouched.
    """
    temporary = path + ".muster-new"
    try:
        write_synced(temporary, data, mode, owner, group)
        os.rename(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    sync_directory(os.path.dirname(path))


def write_synced(path: str, data: bytes, mode: int, owner: int = -1, group: int = -1) -> None:
    """Write a new file that nobody else could read before its mode was set, and wait until it is on the disk."""
    remove(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fchown(handle, owner, group)
        os.fchmod(handle, mode)
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_directory(path: str) -> None:
    """Make renames inside a directory survive a power cut."""
    handle = os.open(path or "/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: str) -> bool:
    """Remove a file if it is there; return whether it was."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
