"""The head's page in Chromium: pictures of a group in every state that a person may find it in, to be looked at.

    python benchmarks/page_views.py --out DIRECTORY [--axe FILE] [--only NAME,...] [--chromium chromium]

Serves the pages by the guard's own control port, with the headers that go with them, and takes a picture of each at 390
and 1440 pixels, light and dark. In one of them hosts and failures speak HTML and escape sequences. With `--axe` and
axe-core's axe.min.js it checks each view, and ends with 1 where one has a violation, a contrast that axe cannot judge,
a line wider than the window, a link that the keyboard does not reach or whose focus does not show, or another title
than the page was sent with. `--serve` takes no pictures and waits: any browser can then ask `http://127.0.0.1:PORT/NAME`.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import html
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
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


CHECK = """
addEventListener("load", async () => {
  const found = await axe.run(), links = [...document.querySelectorAll("a[href]")]
  const unseen = links.filter(link => {
    link.focus()
    return link.tabIndex < 0 || document.activeElement !== link || getComputedStyle(link).outlineStyle === "none"
  })
  const outside = parent.document
  const place = outside.body.appendChild(outside.createElement("pre"))
  place.id = "found"
  place.textContent = JSON.stringify({
    width: innerWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    checked: found.passes.map(rule => rule.id),
    violations: found.violations.map(rule => `${rule.id}: ${rule.nodes[0].html.slice(0, 120)}`),
    unjudged: found.incomplete.filter(rule => rule.id === "color-contrast").map(rule => rule.nodes[0].html),
    overflow: document.documentElement.scrollWidth - innerWidth,
    links: links.length,
    unseen: unseen.map(link => link.textContent),
    title: document.title,
  })
})
"""
"""What a view is asked once it is drawn. It is drawn in a frame: a window of Chromium's has 500 pixels at least."""
FRAME = (
    '<!doctype html><meta charset="utf-8"><body><iframe width="{}" height="{}" style="border:0" srcdoc="{}"></iframe>'
)


def chromium_of(program: str, width: int, scheme: int, *words: str) -> str:
    """Run Chromium on one view, from a profile of its own; return what it prints."""
    with tempfile.TemporaryDirectory() as profile:
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
        look = (
            f"--window-size={width},{HEIGHT}",
            f"--blink-settings=preferredColorScheme={scheme}",
            "--hide-scrollbars",
        )
        command = [program, *flags, *look, f"--user-data-dir={profile}", *words]
        return subprocess.run(command, check=True, capture_output=True, timeout=180, text=True).stdout


def problems(program: str, url: str, width: int, scheme: int, axe: str) -> list[str]:
    """Return what is wrong with one view. The page is the one that was served; only its policy has to let axe in."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        text = answer.read().decode()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "page.html"
        page = html.escape(f"{text}<script>{axe}</script><script>{CHECK}</script>")
        path.write_text(FRAME.format(width, HEIGHT, page))
        drawn = chromium_of(program, width, scheme, "--virtual-time-budget=30000", "--dump-dom", path.as_uri())
    answers = re.findall('<pre id="found">(.*?)</pre>', drawn, re.S)
    if len(answers) != 1:
        return ["axe did not answer"]
    found = json.loads(html.unescape(answers[0]))
    sent = html.unescape(re.findall("<title>(.*?)</title>", text)[0])
    return [
        *found["violations"],
        *(f"contrast not judged: {node}" for node in found["unjudged"]),
        *(f"focus not seen on {name!r}" for name in found["unseen"]),
        *([] if found["links"] else ["no link to check the keyboard on"]),
        *([] if "color-contrast" in found["checked"] else ["axe judged no contrast"]),
        *([] if found["overflow"] <= 0 else [f"{found['overflow']} pixels wider than the window"]),
        *([] if found["title"] == sent else [f"the title became {found['title']!r}"]),
        *([] if (found["width"], found["dark"]) == (width, not scheme) else ["drawn in another width or scheme"]),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("page-views"))
    parser.add_argument("--chromium", default="chromium")
    parser.add_argument("--axe", type=Path, metavar="FILE", help="axe-core's axe.min.js")
    parser.add_argument("--only", default="", metavar="NAME,...", help="of the pages")
    parser.add_argument("--serve", action="store_true")
    words = parser.parse_args()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    child.start()
    bad = 0
    try:
        port, names = here.recv()
        chosen = words.only.split(",") if words.only else names
        urls = {name: f"http://127.0.0.1:{port}/{name}" for name in chosen}
        if words.serve:
            print(*urls.values(), sep="\n", flush=True)
            child.join()
            return 0
        words.out.mkdir(parents=True, exist_ok=True)
        axe = words.axe.read_text() if words.axe else ""
        for name, url in urls.items():
            for width in WIDTHS:
                for scheme, number in SCHEMES.items():
                    path = words.out / f"{name}-{width}-{scheme}.png"
                    chromium_of(words.chromium, width, number, f"--screenshot={path.resolve()}", url)
                    found = problems(words.chromium, url, width, number, axe) if axe else []
                    bad += bool(found)
                    print(f"{path}{': ' + '; '.join(found) if found else ''}", flush=True)
    finally:
        child.terminate()
        child.join(10)
    if words.axe:
        print(f"{len(urls) * len(WIDTHS) * len(SCHEMES)} views checked, {bad} with a problem")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
