"""How long N hosts take to get the same files from one, over links of limited rate.

    sudo python benchmarks/fanout.py --mib 384 --mbit 200 --receivers 1 2 4 8

Every host is a network namespace (links.py). muster's own transfer runs as on a real host: one program on standard
input, verified to the last file. Beside it, in the same run: rsync from one host to each (the star), and aria2 over
BitTorrent with a tracker of this run's own. Writes benchmarks/results/fanout-<date>-<rate>mbit.json.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import hmac
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import swarmed  # noqa: E402
from links import Link, links  # noqa: E402

from muster.hosts import programs  # noqa: E402

PORT = 29610
FILES = 6
TOOLS = ("muster", "rsync", "aria2", "aria2-open")


def main() -> None:
    """Measure what was asked for, print the table, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=384, help="size of the files together")
    parser.add_argument("--mbit", type=float, default=200, help="rate of every link, each way")
    parser.add_argument("--receivers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--tools", nargs="+", default=["muster", "rsync"], choices=TOOLS)
    parser.add_argument("--cases", nargs="+", default=["plain", "slow", "killed"], choices=["plain", "slow", "killed"])
    parser.add_argument("--slow-mbit", type=float, default=50, help="rate of the slow receiver's link")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/fanout-<date>-<rate>mbit.json")
    given = parser.parse_args()
    ideal = given.mib * 2**20 * 8 / given.mbit / 1e6
    rows: list[dict[str, Any]] = []
    print(f"{given.mib} MiB in {FILES} files, links of {given.mbit:.0f} Mbit/s each way: {ideal:.1f} s at best")
    least = floor()
    print(
        f"at least {least:.1f} CPU seconds a received GB: sent, received and written once, hashed twice, in one process"
    )
    print(f"{'tool':12}{'case':8}{'hosts':>6}{'last s':>9}{'others s':>10}{'% of link':>11}{'CPU s/GB':>10}", end="")
    print(f"{'mine':>7}{'all':>6}")
    with tempfile.TemporaryDirectory(prefix="muster-fanout-") as place:
        make_files(Path(place, "origin"), given.mib)
        for tool, case, count in jobs(given):
            row = measure(tool, case, count, Path(place), given)
            row["share_of_link"] = ideal / row["others"]
            row["cpu_seconds_a_gb"] = row["cpu_seconds"] / (count * given.mib * 2**20 / 1e9)
            rows.append(row)
            if given.keep:
                keep(given, ideal, least, rows)
            shares = f"{100 * row['share_of_link']:11.0f}{row['cpu_seconds_a_gb']:10.1f}"
            shares += f"{100 * row['cores_mine']:6.0f}%{100 * row['cores_busy']:5.0f}%"
            print(f"{tool:12}{case:8}{count:6}{row['last']:9.1f}{row['others']:10.1f}{shares}", flush=True)


def jobs(given: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Return what is measured, in order: the first tool in every case, then the others in the plain one."""
    first, *others = given.tools
    plain = [(first, "plain", count) for count in given.receivers if "plain" in given.cases]
    cases = [(first, case, max(given.receivers)) for case in given.cases if case != "plain"]
    return [*plain, *cases, *((tool, "plain", count) for tool in others for count in given.receivers)]


def floor() -> float:
    """Return the CPU seconds that one process takes for each GB which it sends itself, writes, and hashes twice."""
    size, piece = 256 << 20, 1 << 20
    with tempfile.TemporaryFile() as origin, tempfile.TemporaryFile() as home:
        for _ in range(size // piece):
            origin.write(os.urandom(piece))
        origin.flush()
        server = socket.create_server(("127.0.0.1", 0))
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        began = time.process_time()
        sender = threading.Thread(target=lambda: near.sendfile(origin, 0))
        sender.start()
        one, other, buffer = hashlib.sha256(), hashlib.sha256(), memoryview(bytearray(piece))
        left = size
        while left:
            got = far.recv_into(buffer)
            one.update(buffer[:got])
            os.write(home.fileno(), buffer[:got])
            left -= got
        home.seek(0)
        while got := home.readinto(buffer):  # type: ignore[attr-defined]
            other.update(buffer[:got])
        sender.join()
        taken = time.process_time() - began
        for end in (near, far, server):
            end.close()
    assert one.digest() == other.digest()
    return taken / (size / 1e9)


def ticks() -> tuple[int, int]:
    """Return how long all cores have been busy, and how long they have been there, in ticks."""
    words = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(words) - words[3] - words[4], sum(words)


def keep(given: argparse.Namespace, ideal: float, least: float, rows: Sequence[dict[str, Any]]) -> None:
    """Write what has been measured so far."""
    day = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    out = HERE / "results" / f"fanout-{day}-{given.mbit:g}mbit.json"
    out.parent.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "kernel": platform.release()}
    asked = {key: value for key, value in vars(given).items() if key != "keep"}
    out.write_text(
        json.dumps(
            {"asked": asked, "ideal": ideal, "floor_cpu_seconds_a_gb": least, "machine": machine, "rows": rows},
            indent=1,
        )
        + "\n"
    )


def make_files(place: Path, mib: int) -> None:
    """Write random files of unlike sizes, as a model's shards and its small files are."""
    place.mkdir(parents=True)
    for number in range(FILES - 1):
        with open(place / f"model-{number:05}.safetensors", "wb") as handle:
            for _ in range(mib // (FILES - 1)):
                handle.write(os.urandom(1 << 20))
    (place / "config.json").write_bytes(os.urandom(4096))
    (place / "rest.safetensors").write_bytes(os.urandom((mib % (FILES - 1)) << 20))


def measure(tool: str, case: str, count: int, place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Run one tool once and return when the last host was complete, and the last but the slow or killed one.

    Each receiver has a directory of its own, removed afterwards.
    """
    before, (busy, there), began = resource.getrusage(resource.RUSAGE_CHILDREN), ticks(), time.monotonic()
    with links(count + 1, given.mbit) as hosts:
        if case == "slow":
            hosts[-1].limit(given.slow_mbit)
        homes = [place / f"host{number}" for number in range(count + 1)]
        try:
            if tool == "muster":
                times = swarm(hosts, homes, place / "origin", killed=case == "killed", mbit=given.mbit)
            elif tool == "rsync":
                times = star(hosts, homes, place / "origin")
            else:
                times = swarmed.aria2(hosts, homes, place / "origin", place, encrypted=tool == "aria2")
        finally:
            for home in homes:
                shutil.rmtree(home, ignore_errors=True)
    others = times[:-1] if case != "plain" and len(times) > 1 else times
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    now, cores = ticks(), os.cpu_count() or 1
    shares = {"cores_mine": cpu / cores / (time.monotonic() - began), "cores_busy": (now[0] - busy) / (now[1] - there)}
    row = {"tool": tool, "case": case, "receivers": count, "last": max(times), "others": max(others)}
    return {**row, "times": times, "cpu_seconds": cpu, "load": os.getloadavg()[0], **shares}


def requests(hosts: Sequence[Link], homes: Sequence[Path], origin: Path) -> list[dict[str, Any]]:
    """Return what each host is asked to do; the first has the files."""
    files = [
        {"path": path.name, "size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(origin.iterdir())
    ]
    listing = {"model": "bench/fanout", "revision": "0" * 40, "files": files}
    names = [f"h{number}" for number in range(len(hosts))]

    def key(one: str, other: str) -> str:
        return hmac.new(b"bench", "|".join(sorted((one, other))).encode(), hashlib.sha256).hexdigest()

    return [
        {
            "directory": str(home),
            "me": me,
            "seed": "h0",
            "address": host.address,
            "port": PORT,
            "listing": listing,
            "source": {"kind": "directory", "path": str(origin), "from": "from a directory"},
            "interval": 2.0,
            "patience": 20.0,
            "peers": {
                name: {"address": peer.address, "port": PORT, "key": {"text": key(me, name)}}
                for name, peer in zip(names, hosts, strict=True)
                if name != me
            },
        }
        for me, host, home in zip(names, hosts, homes, strict=True)
    ]


def begin(host: Link, request: dict[str, Any]) -> subprocess.Popen[str]:
    """Start the host's program on standard input, as an SSH session does."""
    child = subprocess.Popen(
        host.argv([sys.executable, "-IS", "-"]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdin
    child.stdin.write(programs.bundle({"transfer_stage": request}, streams=True))
    child.stdin.close()
    return child


def swarm(hosts: Sequence[Link], homes: Sequence[Path], origin: Path, *, killed: bool, mbit: float) -> list[float]:
    """Time muster's transfer: seconds until each receiver is complete and verified.

    With `killed` the last receiver is killed half-way and started again two seconds later.
    """
    asked = requests(hosts, homes, origin)
    alone = begin(hosts[0], {**asked[0], "peers": {}})
    _finish(alone, "the seed alone")
    started = time.monotonic()
    done: dict[int, float] = {}
    children = {number: begin(host, request) for number, (host, request) in enumerate(zip(hosts, asked, strict=True))}

    def watch(number: int) -> None:
        stdout = children[number].stdout
        assert stdout
        for line in stdout:
            if line.startswith("all files"):
                done[number] = time.monotonic() - started
            if os.environ.get("FANOUT_LINES"):
                print(f"  {time.monotonic() - started:6.1f} h{number} {line.rstrip()}", file=sys.stderr)

    watchers = [threading.Thread(target=watch, args=(number,)) for number in children]
    for watcher in watchers:
        watcher.start()
    if killed:
        last = len(hosts) - 1
        size = sum(path.stat().st_size for path in origin.iterdir())
        time.sleep(size * 8 / mbit / 1e6 / 2)
        children[last].kill()
        watchers[last].join()
        time.sleep(2)
        children[last] = begin(hosts[last], asked[last])
        watchers[last] = threading.Thread(target=watch, args=(last,))
        watchers[last].start()
    for number, child in children.items():
        watchers[number].join()
        _finish(child, f"h{number}")
    return [done[number] for number in range(1, len(hosts))]


def _finish(child: subprocess.Popen[str], who: str) -> None:
    if child.wait(600):
        assert child.stderr
        raise SystemExit(f"{who}: {child.stderr.read()}")


def star(hosts: Sequence[Link], homes: Sequence[Path], origin: Path) -> list[float]:
    """Time rsync's own protocol from one daemon to all receivers at once."""
    config = homes[0].parent / "rsyncd.conf"
    config.write_text(f"use chroot = no\nuid = root\ngid = root\n[model]\npath = {origin}\n")
    daemon = subprocess.Popen(
        hosts[0].argv(["rsync", "--daemon", "--no-detach", f"--config={config}", f"--address={hosts[0].address}"])
    )
    try:
        time.sleep(0.5)
        started = time.monotonic()
        times = [0.0] * (len(hosts) - 1)

        def one(number: int) -> None:
            argv = ["rsync", "-a", "--whole-file", f"rsync://{hosts[0].address}/model/", f"{homes[number]}/"]
            subprocess.run(hosts[number].argv(argv), check=True)
            times[number - 1] = time.monotonic() - started

        threads = [threading.Thread(target=one, args=(number,)) for number in range(1, len(hosts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return times
    finally:
        daemon.terminate()
        daemon.wait()


if __name__ == "__main__":
    main()
