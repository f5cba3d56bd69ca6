"""How fast this host reads staged weights from its disk: measured as a loader does that maps the files.

Processes map ranges of the files and copy from them, each its own, at the pace of the kernel's read-ahead: vLLM's
default loader does the same. A range that the page cache holds is dropped first and is there again afterwards; one that
it does not hold is dropped when it was read. So the figure is the disk's, and the cache is as it was.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import select
import signal
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from muster.on_host import kept_rate, mutex, transfer_room, weights_on_disk
from muster.on_host import transfer_store as store
from muster.on_host.in_words import size

LEAST = 256 << 20
"""Bytes of weights below which seconds say nothing."""
BYTES, SECONDS = 2 << 30, 2.0
"""Bounds of each of the two measurements."""
MOST_READERS = 64
STEP = 1 << 20
"""Bytes that a reader copies at a time, and that ranges begin at multiples of."""
_PATIENCE = 20.0
_REPORT = struct.Struct("=Qd")


@dataclass(frozen=True)
class Range:
    """A part of a file; it begins at a multiple of 1 MiB."""

    path: str
    offset: int
    length: int


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Measure, keep the figures beside the revision's records, and return them.

    Args:
        request: `directory` of the revision, `manifest`: digest of its pin, `readers`: as many as the host has ranks;
            `bytes`, `least` (tests): instead of BYTES and LEAST.

    Returns:
        `rate`: as `kept_rate.of`, or None; `why` there is none.
    """
    directory, readers = request["directory"], max(1, min(int(request["readers"]), MOST_READERS))
    try:
        transfer_room.check_own(directory)
        with mutex.held(directory + ".lock", "writes here", minutes=1):
            state = weights_on_disk.pinned_state(directory, request["manifest"])
            if not state["complete"]:
                return {"rate": None, "why": f"{directory} is not complete"}
            sizes = {path: int(entry["size"]) for path, entry in state["manifest"]["files"].items()}
            names = sorted(path for path in sizes if path.endswith(".safetensors"))
            weights = [(store.inside(directory, path), sizes[path]) for path in names]
            total, least = sum(count for _, count in weights), request.get("least", LEAST)
            if total < least:
                return {"rate": None, "why": f"{size(total)} of weights are too few to measure"}
            # Two halves: what the first measurement read is not the second one's.
            most = min(request.get("bytes", BYTES), total // 2)
            one = measured(shared(weights, 0, most, 1))
            together = measured(shared(weights, total // 2, most, readers)) if readers > 1 else one
            kept_rate.keep(directory, one, together, readers)
    except OSError as error:
        return {"rate": None, "why": str(error)}
    return {"rate": kept_rate.of(directory), "why": ""}


def shared(files: Sequence[tuple[str, int]], begin: int, count: int, readers: int) -> list[list[Range]]:
    """Divide a part of some files, laid end to end, into one stretch for each reader.

    Args:
        files: (path, bytes).
        begin, count: bytes, of the part; rounded down to whole steps.
        readers: how many.
    """
    each = count // readers // STEP * STEP
    begin = begin // STEP * STEP
    return [_stretch(files, begin + number * each, each) for number in range(readers)]


def _stretch(files: Sequence[tuple[str, int]], begin: int, count: int) -> list[Range]:
    ranges = []
    for path, length in files:
        whole = length // STEP * STEP
        if count > 0 and begin < whole:
            taken = min(count, whole - begin)
            ranges.append(Range(path, begin, taken))
            begin, count = 0, count - taken
        else:
            begin = max(0, begin - whole)
    return ranges


def measured(stretches: Sequence[Sequence[Range]], seconds: float = SECONDS) -> int:
    """Return how many bytes a second all readers get together.

    Args:
        stretches: of each reader.
        seconds: after which the readers stop.

    Raises:
        OSError: nothing was read, a reader died, or the page cache cannot be taken out of the way.
    """
    ranges = list(dict.fromkeys(each for stretch in stretches for each in stretch))
    cached = [each for each in ranges if 2 * _cached(each) > each.length]
    for each in ranges:
        _drop(each)
    kept = sum(map(_cached, ranges))
    if kept > sum(each.length for each in ranges) // 10:
        raise OSError(f"the page cache keeps {size(kept)} of these files: a process has them mapped")
    try:
        done, took = _read(stretches, seconds)
    finally:
        for each in ranges:
            if each not in cached:
                _drop(each)
    if not done or took <= 0:
        raise OSError("nothing could be read")
    return int(done / took)


def _read(stretches: Sequence[Sequence[Range]], seconds: float) -> tuple[int, float]:
    """Run one process for each stretch; return the bytes of all and the seconds until the last was done."""
    began, children, reports = time.monotonic(), list[int](), list[int]()
    try:
        for stretch in stretches:
            report, out = os.pipe()
            reports.append(report)
            child = os.fork()
            if child == 0:
                _reader(stretch, out, began + seconds)
            os.close(out)
            children.append(child)
        return _collected(reports, began, seconds + _PATIENCE)
    finally:
        for report in reports:
            os.close(report)
        for child in children:
            os.kill(child, signal.SIGKILL)  # those that are done have ended already
            os.waitpid(child, 0)


def _copied(stretch: Sequence[Range], until: float) -> int:
    """Map each range and copy it out piece by piece until then; return how many bytes that were."""
    done = 0
    for each in stretch:
        with _mapped(each) as file:
            for at in range(0, each.length, STEP):
                if time.monotonic() > until:
                    return done
                done += len(file[at : at + STEP])
    return done


@contextlib.contextmanager
def _mapped(part: Range) -> Iterator[mmap.mmap]:
    """Map a part of a file as a loader does, so that only reading it reads the disk."""
    handle = store.open_own(part.path)
    try:
        with mmap.mmap(handle, part.length, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=part.offset) as file:
            yield file
    finally:
        os.close(handle)


def _reader(stretch: Sequence[Range], out: int, until: float) -> None:
    """Read until the end or the deadline, report bytes and time, and end this process."""
    status = 1
    try:
        done = _copied(stretch, until)
        os.write(out, _REPORT.pack(done, time.monotonic()))
        status = 0
    finally:
        os._exit(status)


def _collected(reports: Sequence[int], began: float, patience: float) -> tuple[int, float]:
    done, last, waiting = 0, began, set(reports)
    while waiting:
        ready, _, _ = select.select(list(waiting), [], [], max(0.0, began + patience - time.monotonic()))
        if not ready:
            raise OSError(f"a reader has not come back after {patience:.0f} s: the disk hangs")
        for report in ready:
            data = os.read(report, _REPORT.size)
            if len(data) < _REPORT.size:
                raise OSError("a reader died: a file was cut meanwhile, or cannot be read")
            count, at = _REPORT.unpack(data)
            done, last = done + count, max(last, at)
            waiting.discard(report)
    return done, last - began


def _drop(part: Range) -> None:
    """Have the page cache forget a part of a file; what a process has mapped stays."""
    handle = store.open_own(part.path)
    try:
        os.fdatasync(handle)  # what is not on the disk yet cannot be forgotten: a seed's files are new
        os.posix_fadvise(handle, part.offset, part.length, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def _cached(part: Range) -> int:
    """Return how many bytes of a part of a file the page cache holds; nothing is read."""
    handle = store.open_own(part.path)
    try:
        # ctypes takes the address of writable memory alone; what is private changes no file.
        access = mmap.PROT_READ | mmap.PROT_WRITE
        with mmap.mmap(handle, part.length, mmap.MAP_PRIVATE, access, offset=part.offset) as file:
            pages = (ctypes.c_ubyte * -(-part.length // mmap.PAGESIZE))()
            first = ctypes.c_char.from_buffer(file)
            libc, at = ctypes.CDLL(None, use_errno=True), ctypes.c_void_p(ctypes.addressof(first))
            del first  # a map that is looked into cannot be closed
            if libc.mincore(at, ctypes.c_size_t(part.length), pages):
                raise OSError(ctypes.get_errno(), "mincore", part.path)
    finally:
        os.close(handle)
    return min(part.length, sum(page & 1 for page in bytes(pages)) * mmap.PAGESIZE)
