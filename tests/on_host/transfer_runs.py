"""Runs of the hosts' transfer program on loopback: every host is an address of 127.0.0.0/8 and a process of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from muster.hosts import programs
from muster.spec.listing import Entry, Listing
from muster.weights.keys import pair_keys
from tests.free_port import free_port

MIB = 1 << 20
COMMIT = "c" * 40


def model(place: Path, sizes: Mapping[str, int], seed: int = 1) -> Path:
    """Write files of given sizes with bytes that are random and always the same."""
    chance = random.Random(seed)
    for name, size in sizes.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(size))
    return place


SMALL = {"config.json": 700, "empty.txt": 0, "code/model.py": 5000, "a.safetensors": 9 * MIB, "b.safetensors": 5 * MIB}


def listing_of(place: Path) -> Listing:
    """Return what lies in a directory as a listing."""
    entries = [
        Entry(path.relative_to(place).as_posix(), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(place.rglob("*"))
        if path.is_file()
    ]
    return Listing("org/model", COMMIT, "test", tuple(sorted(entries, key=lambda entry: entry.path)))


def homes(tmp_path: Path, count: int) -> list[Path]:
    """Return the revision's directory on each of so many hosts."""
    return [tmp_path / f"h{number}" / "org--model" / COMMIT for number in range(count)]


def pinned(home: Path, origin: Path) -> dict[str, Any]:
    """Return what the control machine sends of the pin."""
    listing = listing_of(origin)
    return {"directory": str(home), "manifest": listing.digest, "files": listing.as_data()["files"]}


def requests(homes: Sequence[Path], origin: Path, **more: Any) -> list[dict[str, Any]]:
    """Return the request of each host; the first is the seed and fetches from `origin`."""
    names = [f"h{number}" for number in range(len(homes))]
    keys, port = pair_keys(names, b"k" * 32), free_port()
    address = {name: f"127.0.0.{number + 11}" for number, name in enumerate(names)}
    return [
        {
            "directory": str(home),
            "listing": listing_of(origin).as_data(),
            "me": me,
            "seed": "h0",
            "address": address[me],
            "port": port,
            "peers": {n: {"address": address[n], "port": port, "key": {"text": keys[me][n]}} for n in names if n != me},
            "source": {"kind": "directory", "path": str(origin), "from": "from a directory"},
            "patience": 4.0,
            "interval": 0.5,
            **more,
        }
        for me, home in zip(names, homes, strict=True)
    ]


class Run:
    """One host's program, as SSH starts it."""

    def __init__(self, request: Mapping[str, Any], *, streams: bool = True) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-IS", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.child.stdin
        self.child.stdin.write(self.program(json.loads(json.dumps(request)), streams=streams))
        self.child.stdin.close()
        self.child.stdin = None

    def program(self, request: Mapping[str, Any], *, streams: bool) -> str:
        """Return what is sent to the host's Python."""
        program = programs.bundle({"transfer_stage": request}, streams=streams)
        # No systemd here, and the Python of the tests may be root's alone: the hub's client runs as the tests' user.
        return program.replace("return os.geteuid() == 0", "return False")

    def end(self) -> tuple[int, str, str]:
        """Wait for it and return status, output and errors."""
        try:
            out, err = self.child.communicate(timeout=60)
        finally:
            self.child.kill()
        return self.child.returncode, out, err


class AnsweredRuns:
    """Runs whose programs print their answers, and their progress on stderr."""

    def __init__(self, requests: Sequence[Mapping[str, Any]]) -> None:
        self.ended = [run.end() for run in [Run(request, streams=False) for request in requests]]

    def answer(self, number: int) -> dict[str, Any]:
        """Return what one host's program answered."""
        told: dict[str, Any] = json.loads(self.ended[number][1].strip().splitlines()[-1])["transfer_stage"]
        return told


def all_of(asked: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, str]]:
    """Run every host at once and return how each ended."""
    runs = [Run(request) for request in asked]
    return [run.end() for run in runs]


def same(one: Path, other: Path) -> bool:
    """Whether two directories hold the same files, but for muster's notes."""

    def files(place: Path) -> dict[str, bytes]:
        return {
            path.relative_to(place).as_posix(): path.read_bytes()
            for path in place.rglob("*")
            if path.is_file() and not path.name.startswith(".muster")
        }

    return files(one) == files(other)


BLOCK = 8192
"""Bytes that go through `through` at a time."""


class Cut:
    """A line that goes dead after some bytes, and carries again once it is mended.

    Args:
        after: bytes that pass before.
        seconds: after which it is whole again.
    """

    def __init__(self, after: int, seconds: float) -> None:
        self._left, self._seconds = after // BLOCK, seconds
        self.dead, self._whole = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self._left -= 1
        if self._left < 0:
            if not self.dead.is_set():
                self.dead.set()
                threading.Timer(self._seconds, self.mend).start()
            self._whole.wait(60)

    def mend(self) -> None:
        """Carry again, and for good."""
        self._left = sys.maxsize
        self._whole.set()


@contextlib.contextmanager
def slowed(address: str, port: int, *, caller: str, seconds: float) -> Iterator[int]:
    """Give another port of a host, through which what it sends trickles for some seconds, at 80 KB/s a connection."""
    until = time.monotonic() + seconds
    with through(address, port, caller=caller, pace=lambda: time.sleep(0.1 * (time.monotonic() < until))) as other:
        yield other


@contextlib.contextmanager
def through(address: str, port: int, *, caller: str, pace: Callable[[], None]) -> Iterator[int]:
    """Give another port of a host, through which what it sends goes at another pace.

    Args:
        address, port: where it listens.
        caller: address from which the host is called on.
        pace: called before each block that the host sends; it may wait.
    """
    server = socket.create_server((address, 0))

    def pump(given: socket.socket, taken: socket.socket, wait: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            while data := given.recv(BLOCK):
                wait()
                taken.sendall(data)
        for end in (given, taken):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                try:
                    far = socket.create_connection((address, port), 5, (caller, 0))
                except OSError:
                    near.close()
                    continue
                far.settimeout(None)
                for words in ((near, far, lambda: None), (far, near, pace)):
                    threading.Thread(target=pump, args=words, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()
