"""Brings weights back into the page cache, once and at the lowest priority; the guard starts it as a process.

    python3 -I -S page_cache_program.py DIRECTORY SECONDS [MEMINFO]

It looks how much of the directory's *.safetensors is there, says so, reads the rest if there is memory for it, says how
that went, and ends. Each of both is a line of JSON. It imports nothing of the guard's: its file is started by itself.

Whether a page is there is asked by reading one byte with RWF_NOWAIT. mincore tells the truth only to who may write the
file; the guard may not, and to it every page is resident.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import random
import signal
import stat
import sys
import time
from collections.abc import Iterator, Sequence

SUFFIX = ".safetensors"
FILES = 4096
"""Most files of one model."""
ENOUGH = 0.98
"""Share from which on nothing is read: that much is estimated."""
RESERVE_SHARE, RESERVE_LEAST = 0.1, 8 << 30
"""Of MemTotal, and bytes: what stays available besides the weights."""
WINDOW = 1 << 20
"""Bytes that are read at once."""
SWIFT = 20e-6
"""Seconds within which a page that is there is read: 1 to 3 us, but for one in hundreds; from a disk 50 us and more."""
NEAR = 1 << 18
"""Bytes around a place where another page is asked instead."""
LOOK = 0.1
"""Seconds between two looks at the memory."""
SAMPLES = 1024
"""Pages that a look asks for."""
REST = 1.0
"""Seconds of pause for each second of reading: at most half of the disk's time."""
_SLEEP = 0.01
_RWF_NOWAIT = getattr(os, "RWF_NOWAIT", 8)
_BYTE = [bytearray(1)]
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_IDLE, _PR_SET_PDEATHSIG = 3 << 13, 1


def opened(path: str, directory: int | None = None, *, scattered: bool = False) -> int:
    """Return a descriptor of a regular file; a link is not followed.

    Args:
        path: of the file.
        directory: descriptor that a relative path begins at.
        scattered: single pages are read, and nothing ahead of them.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{path} is no regular file")
        if scattered:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
    except OSError:
        os.close(handle)
        raise
    return handle


def is_there(handle: int, at: int) -> bool | None:
    """Whether the page cache holds the page of one byte; None: not known, for the answer took too long.

    The kernel may read that page for the question, and a disk can be swift enough to pass for the page cache.
    Raises OSError where the file system cannot tell, as NFS.
    """
    began = time.perf_counter()
    try:
        found = os.preadv(handle, _BYTE, at, _RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise OSError("the file system does not say what the page cache holds") from None
        raise
    return found if time.perf_counter() - began < SWIFT else None


def estimate(
    paths: Sequence[str], samples: int, seed: int | None = None, directory: int | None = None
) -> tuple[int, int]:
    """Return how many bytes of some files the page cache holds, by samples, and how many they have.

    Args:
        paths: of the files.
        samples: pages that are asked; one anywhere in each of so many equal parts.
        seed: of the places; None draws others each time, for a page that was asked is there afterwards.
        directory: descriptor that relative paths begin at.
    """
    sizes = [os.stat(path, dir_fd=directory, follow_symlinks=False).st_size for path in paths]
    total, lot = sum(sizes), random.Random(seed)
    places = [int((number + lot.random()) * total / samples) for number in range(samples)] if total else []
    found = begin = asked = 0
    for path, size in zip(paths, sizes):
        handle = opened(path, directory, scattered=True)
        try:
            while asked < len(places) and places[asked] < begin + size:
                found += _is_around(handle, places[asked] - begin, size, lot)
                asked += 1
        finally:
            os.close(handle)
        begin += size
    return (total * found // samples if total else 0), total


def _is_around(handle: int, at: int, size: int, lot: random.Random) -> bool:
    """Whether the page cache holds a page, or others nearby where it is not known: what was read is there now."""
    for _ in range(3):
        answer = is_there(handle, at)
        if answer is not None:
            return answer
        at = max(0, min(size - 1, at + lot.randint(-NEAR, NEAR)))
    return False


def memory(meminfo: str = "/proc/meminfo") -> tuple[int, int]:
    """Return the host's available and all memory, in bytes."""
    values = {}
    with open(meminfo, encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                values[name] = int(rest.split()[0]) << 10
    return values["MemAvailable"], values["MemTotal"]


def short_of(total: int, meminfo: str = "/proc/meminfo") -> str:
    """Return why the page cache cannot keep so many bytes, or empty.

    What is there of them counts as available, so that all of them are compared and not what is missing: otherwise the
    rest would be read in the place of what is there.
    """
    available, whole = memory(meminfo)
    reserve = max(RESERVE_LEAST, int(whole * RESERVE_SHARE))
    if available >= total + reserve:
        return ""
    return f"{gb(total)} and {gb(reserve)} that stay free are needed, {gb(available)} are available"


def gb(count: int) -> str:
    """Return bytes for people."""
    return f"{count / 1e9:,.{0 if count >= 1e10 else 1}f} GB"


def open_directory(path: str) -> int:
    """Return a descriptor of a directory that is root's or this user's, and that not everybody may write to."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    status = os.fstat(handle)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        os.close(handle)
        raise OSError(f"{path} belongs to user {status.st_uid} (mode {stat.S_IMODE(status.st_mode):04o}), not to root")
    return handle


def names_in(directory: int) -> list[str]:
    """Return the names of the weights' files, in order."""
    names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX))
    if not 0 < len(names) <= FILES:
        raise OSError(f"{len(names)} files are *{SUFFIX}, needed 1 to {FILES}")
    return names


def fill(directory: int, names: Sequence[str], until: float, meminfo: str = "/proc/meminfo") -> str:
    """Read what is missing; return why not all of it, or empty.

    Args:
        directory: descriptor of the files' directory.
        names: of the files.
        until: monotonic seconds when it stops.
        meminfo: file that says what memory there is.
    """
    total = sum(os.stat(name, dir_fd=directory, follow_symlinks=False).st_size for name in names)
    buffer = memoryview(bytearray(WINDOW))
    looked, busy = float("-inf"), 0.0
    for name in names:
        for handle, at, count in _windows(directory, name):
            place = [buffer[:count]]
            if _kept(handle, place, at) == count:
                continue
            began = time.monotonic()
            if began >= until:
                return "it took too long"
            if began - looked >= LOOK:
                looked, why = began, short_of(total, meminfo)
                if why:
                    return why
            os.preadv(handle, place, at)
            busy += time.monotonic() - began
            if busy >= _SLEEP:
                time.sleep(busy * REST)
                busy = 0.0
    return ""


def _windows(directory: int, name: str) -> Iterator[tuple[int, int, int]]:
    """Go through a file in order; yield descriptor, offset and bytes of each window."""
    # Read in order it gets the kernel's read-ahead, and large pages: those of POSIX_FADV_WILLNEED map slower.
    handle = opened(name, directory)
    try:
        size = os.fstat(handle).st_size
        for at in range(0, size, WINDOW):
            yield handle, at, min(WINDOW, size - at)
    finally:
        os.close(handle)


def _kept(handle: int, place: Sequence[memoryview], at: int) -> int:
    """Copy what the page cache holds from an offset on, until the first page that is missing; return its bytes."""
    try:
        return os.preadv(handle, place, at, _RWF_NOWAIT)
    except BlockingIOError:
        return 0


def stand_back() -> None:
    """Take what others leave of processor and disk, and end with the guard. What is refused is done without."""
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if platform.machine() in _IOPRIO_SET:
            libc.syscall(_IOPRIO_SET[platform.machine()], 1, 0, _IOPRIO_IDLE)


def main(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    path, until, meminfo = arguments[0], began + float(arguments[1]), (*arguments, "/proc/meminfo")[2]
    stand_back()
    try:
        directory = open_directory(path)
        names = names_in(directory)
        there, total = estimate(names, SAMPLES, directory=directory)
        lacks = there < ENOUGH * total
        why = short_of(total, meminfo) if lacks else ""
        _say({"there": there, "bytes": total, "reads": lacks and not why, "short": why})
        if lacks and not why:
            began = time.monotonic()
            why = fill(directory, names, until, meminfo)
            seconds = time.monotonic() - began
            there, total = estimate(names, SAMPLES, directory=directory)
            why = why or ("" if there >= ENOUGH * total else "what is read does not stay")
            _say({"now": there, "seconds": seconds, "why": why})
    except OSError as error:
        _say({"problem": str(error)})
        return 1
    return 0


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
