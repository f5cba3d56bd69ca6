"""`dmesg` and `journalctl -k` of a sandbox host: what the simulated driver logged, never the machine's own log."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

from . import gpusim


def _boot() -> float:
    return time.time() - float(Path("/proc/uptime").read_text().split()[0])


def _style(flags: list[str]) -> str:
    for number, flag in enumerate(flags):
        if flag in ("-o", "--output"):
            return "".join(flags[number + 1 : number + 2])
        if flag.startswith("--output="):
            return flag.split("=", 1)[1]
    return ""


def main(argv: list[str]) -> int:
    name, flags = argv[0], argv[1:]
    state = gpusim.load()
    gpusim.misbehave(state, name)
    started = _boot()
    style = _style(flags)
    for at, message in gpusim.kernel_lines(state):
        if name == "dmesg" and any(flag in ("-T", "--ctime") for flag in flags):
            print(f"[{time.ctime(started + at)}] {message}")
        elif name == "dmesg":
            print(f"[{at:12.6f}] {message}")
        elif style == "cat":
            print(message)
        elif style == "json":
            stamp = str(int((started + at) * 1e6))
            print(json.dumps({"MESSAGE": message, "_TRANSPORT": "kernel", "__REALTIME_TIMESTAMP": stamp}))
        else:
            stamp = time.strftime("%b %d %H:%M:%S", time.localtime(started + at))
            print(f"{stamp} {socket.gethostname()} kernel: {message}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
