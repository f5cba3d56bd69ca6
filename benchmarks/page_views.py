"""The head's page in Chromium: pictures of a group in every state that a person may find it in, to be looked at.

    python benchmarks/page_views.py --out DIRECTORY [--chromium chromium]

Serves the pages by the guard's own control port, with the headers that go with them, and takes a picture of each at 390
and 1440 pixels, light and dark. In one of them hosts and failures speak HTML and escape sequences. `--serve` takes no
pictures and waits: any browser, or a checker such as axe-core, can then ask `http://127.0.0.1:PORT/NAME`.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import multiprocessing
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from guard_readers import guard_of

from muster.guard.answers import HTML, Answers
from muster.guard.control_port import ControlPort
from muster.guard.http import Response
from muster.guard.status import numbers, without_lines
from muster.guard.status_page import page

WIDTHS = (390, 1440)
HEIGHT = 2000
SCHEMES = {"light": 1, "dark": 0}
"""Name -> how Chromium's setting numbers it."""
XID = "fatal Xid: [   60.000000] gpu-1 kernel: NVRM: Xid (PCI:0000:00:06): 79, pid='<unknown>', fallen off the bus."
HOSTILE = (
    "<script>document.title='owned'</script><img src=//example.invalid/x onerror=alert(1)></style>"
    "<style>*{display:none}</style>\x1b]0;owned\x07\x1b[31m\u202egnp.exe " + "A" * 3000
)


def documents() -> dict[str, dict[str, Any]]:
    """Name -> what `/status` answers about such a group."""

    def group(hosts: int = 2) -> dict[str, Any]:
        found = without_lines(Answers(guard_of(hosts), "key", frozenset()).group(time.monotonic()))
        assert found is not None
        return found

    def waiting(phase: str, reason: str, **change: Any) -> dict[str, Any]:
        made = {**group(), "phase": phase, "reason": reason, "ready": False, "ready_for": None, "engines": [], **change}
        for member in made["members"]:
            member["child"] = "none"
        return made

    restarting = waiting("backoff", "backoff, starts in 38 s, gpu-1: not joined yet", starts_in=38.0)
    restarting["members"][1]["lacks"] = "not joined yet"
    blocked = waiting("gather", f"gather, gpu-1: {XID}")
    blocked["members"][1]["lacks"] = XID
    hostile = copy.deepcopy(blocked)
    hostile["reason"] = hostile["members"][1]["lacks"] = HOSTILE
    hostile["failures"] = [{**failure, "reason": HOSTILE, "host": HOSTILE} for failure in hostile["failures"]]
    starting = {**group(), "phase": "starting", "ready": False, "reason": "starting, no answer yet from DP ranks 8, 9"}
    for engine in starting["engines"][8:]:
        engine.update(proof=None, strikes=1)
    guard = guard_of(2)
    return {
        "running": group(),
        "large": group(16),
        "stranger": numbers(guard.head.state, guard.head.liveness, time.monotonic()),
        "starting": starting,
        "restarting": restarting,
        "blocked": blocked,
        "failed": waiting("failed", "failed: the restart budget is spent", aborts_in_window=7),
        "hostile": hostile,
    }


def serve(pipe: Connection) -> None:
    """Answer with the pages until this process is ended; send the port first."""
    made = documents()

    def get(path: str, key: str) -> Response:
        document = made.get(path[1:])
        return (404, "no such page\n", HTML) if document is None else (200, page(document, time.time(), key=True), HTML)

    async def run() -> None:
        port = ControlPort("g", b"k" * 32, frozenset(), lambda report: None, lambda name: {}, get, 20.0)
        await port.listen("127.0.0.1", 0)
        pipe.send((port.port, list(made)))
        await asyncio.Event().wait()

    asyncio.run(run())


def picture(chromium: str, url: str, width: int, scheme: int, path: Path) -> None:
    """Have Chromium draw one page into a file, from a profile of its own."""
    with tempfile.TemporaryDirectory() as profile:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
        look = (
            f"--window-size={width},{HEIGHT}",
            f"--blink-settings=preferredColorScheme={scheme}",
            "--hide-scrollbars",
        )
        command = [chromium, *flags, *look, f"--user-data-dir={profile}", f"--screenshot={path.resolve()}", url]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("page-views"))
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--serve", action="store_true")
    words = parser.parse_args()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    child.start()
    try:
        port, names = here.recv()
        urls = {name: f"http://127.0.0.1:{port}/{name}" for name in names}
        if words.serve:
            print(*urls.values(), sep="\n", flush=True)
            child.join()
            return
        words.out.mkdir(parents=True, exist_ok=True)
        for name, url in urls.items():
            for width in WIDTHS:
                for scheme, number in SCHEMES.items():
                    path = words.out / f"{name}-{width}-{scheme}.png"
                    picture(words.chromium, url, width, number, path)
                    print(path)
    finally:
        child.terminate()
        child.join(10)


if __name__ == "__main__":
    main()
