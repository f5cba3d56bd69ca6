"""`dmesg` and `journalctl -k` of a sandbox host: what the simulated driver logged, never the machine's own log."""

from __future__ import annotations

import json
import os
import sys
import time

from . import gpusim


def _boot() -> float:
    return time.time() - float(gpusim.read("/proc/uptime").split()[0])


def _style(flags: list[str]) -> str:
    for number, flag in enumerate(flags):
        if flag in ("-o", "--output"):
            return "".join(flags[number + 1 : number + 2])
        if flag.startswith("--output="):
            return flag.split("=", 1)[1]
    return ""


_FOLLOW_SECONDS = 1.0
"""Seconds between two reads of a `journalctl -f`."""


def _line(name: str, flags: list[str], style: str, at: float, message: str) -> str:
    started = _boot()
    if name == "dmesg" and any(flag in ("-T", "--ctime") for flag in flags):
        return f"[{time.ctime(started + at)}] {message}"
    if name == "dmesg":
        return f"[{at:12.6f}] {message}"
    if style == "cat":
        return message
    if style == "json":
        stamp = str(int((started + at) * 1e6))
        return json.dumps({"MESSAGE": message, "_TRANSPORT": "kernel", "__REALTIME_TIMESTAMP": stamp})
    if style == "short-monotonic":
        return f"[{at:12.6f}] {os.uname().nodename} kernel: {message}"
    stamp = time.strftime("%b %d %H:%M:%S", time.localtime(started + at))
    return f"{stamp} {os.uname().nodename} kernel: {message}"


def main(argv: list[str]) -> int:
    name, flags = argv[0], argv[1:]
    state = gpusim.load()
    gpusim.misbehave(state, name)
    style = _style(flags)
    follows = name == "journalctl" and any(flag in ("-f", "--follow") for flag in flags)
    printed: list[tuple[float, str]] = []
    while True:
        lines = gpusim.kernel_lines(state)
        for at, message in lines[len(printed) :] if lines[: len(printed)] == printed else lines:
            print(_line(name, flags, style, at, message), flush=True)
        printed = lines
        if not follows:
            return 0
        time.sleep(_FOLLOW_SECONDS)
        state = gpusim.load()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
