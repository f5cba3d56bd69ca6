"""What clients of two edges see of an hour of faults, and of a setting, an engine and keys that are changed meanwhile.

    sudo python benchmarks/edge_hour.py [--minutes 60] [--clients 64] [--pause 0] [--token-seconds 0.05] [--out FILE]

Boots four sandbox hosts: two groups of two hosts with stand-in engines, an edge on the second host of each. Clients ask
again and again, every other one for a stream; one that gets no connection asks the other edge. Faults come at fixed
shares of the time, the last at seven eighths of it. Ends with 1 where a request was refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests import standin
from tests.edge.edged import Edged, Layout, Load

from muster.sandbox import Sandbox

NAME = "edge-hour"
LAYOUT = Layout({"kimi-a": ("node0", "node1"), "kimi-b": ("node2", "node3")}, ("node1", "node3"))
NEXT = f"{standin.PATH}-next"
"""Where hosts have another engine."""


class Fleet(Edged):
    """Both groups and both edges, deployed by the fleet's own run, with the settings of the last change."""

    inventory = LAYOUT.whole

    def __init__(self, box: Sandbox, directory: Path) -> None:
        super().__init__(box, directory, LAYOUT)
        # A machine that is busy for seconds must not pass for an engine that hangs.
        self.settings: dict[str, Any] = {"stall_timeout": 15, "canary_idle": 5}

    def start(self, deploy: str = "kimi_k2_instruct", *flags: str, **settings: Any) -> Any:
        return super().start(deploy, *flags, **{**self.settings, **settings})

    def bring_up(self, token_seconds: float = 0.05) -> None:
        self.prepare(token_seconds)
        for host in self.hosts:
            self.sh(host, f"cp -r {standin.PATH} {NEXT}; sed -i 's#{standin.PATH}/#{NEXT}/#' {NEXT}/bin/vllm")
        self.change("fleet")

    def change(self, deploy: str, **settings: Any) -> None:
        """Deploy the fleet or its edges with another setting, which stays."""
        self.settings |= settings
        self.done(deploy)

    def kill(self, host: str, signal: str, title: str) -> None:
        """Send a signal to a host's processes of that title, but none that waits for its generation."""
        self.sh(host, f"pgrep -af '{title}' | grep -v standby_program | cut -d' ' -f1 | xargs kill -{signal}")


Step = Callable[[Fleet], object]


def timetable() -> Mapping[float, tuple[str, Step]]:
    """Return share of the duration -> what is done then, and how."""
    return {
        0.05: ("a key is added", lambda there: there.new_key("late")),
        0.10: ("KILL of an engine", lambda there: there.kill("node0", "KILL", "[v]llm serve")),
        0.20: ("a setting is rolled out", lambda there: there.change("fleet", max_num_seqs=40)),
        0.35: ("STOP of an engine", lambda there: there.kill("node2", "STOP", "^VLLM::EngineCore")),
        0.45: ("a setting of the edges changes", lambda there: there.change("edge", edge_silence=500)),
        0.50: ("a key is revoked", lambda there: there.key("revoke", "late")),
        0.55: ("another engine is rolled out", lambda there: there.change("fleet", engine_path=NEXT)),
        0.70: ("the power of a head goes", lambda there: there.box.kill_power("node2")),
        0.78: ("the head is back", lambda there: there.box.start("node2")),
        0.87: ("an edge is reloaded", lambda there: there.sh("node3", "systemctl reload haproxy")),
    }


def measured(there: Fleet, minutes: float, clients: int, pause: float) -> dict[str, Any]:
    """Carry out the timetable under load, and return when each fault came and what became of the requests."""
    key, happened = there.new_key("load"), []
    with Load(there, key, clients, LAYOUT.edges, pause=pause) as load:
        began = time.monotonic()
        for share, (what, step) in timetable().items():
            time.sleep(max(0.0, began + share * minutes * 60 - time.monotonic()))
            row = {"at_s": round(time.monotonic() - began), "what": what, "before": dict(load.counts)}
            step(there)
            row["took_s"] = round(time.monotonic() - began - row["at_s"])
            happened.append(row)
            print(row, flush=True)
        time.sleep(max(0.0, began + minutes * 60 - time.monotonic()))
    lost = load.others("done")
    return {
        "minutes": minutes,
        "clients": clients,
        "pause_s": pause,
        "steps": happened,
        "counts": dict(load.counts),
        "why": list(lost),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--pause", type=float, default=0, help="seconds between an answer and a client's next request")
    parser.add_argument("--token-seconds", type=float, default=0.05, help="of a step of the stand-in engines")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    box = Sandbox.up(NAME, 4)
    try:
        with tempfile.TemporaryDirectory() as place:
            there = Fleet(box, Path(place))
            there.bring_up(args.token_seconds)
            rows = measured(there, args.minutes, args.clients, args.pause)
    finally:
        box.down()
    rows |= {"date": date.today().isoformat(), "cores": os.cpu_count(), "load": os.getloadavg()}
    print(json.dumps(rows["counts"]), *rows["why"], sep="\n")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if rows["counts"].get("refused") or rows["counts"].get("unreached") else 0


if __name__ == "__main__":
    sys.exit(main())
