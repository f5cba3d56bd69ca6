"""What clients of two edges see of an hour of faults: kills, stops, a head without power, reloads, changes of keys.

    sudo python benchmarks/edge_hour.py [--minutes 60] [--clients 64] [--token-seconds 0.05] [--out FILE]

Boots four sandbox hosts: two groups of two hosts with stand-in engines, an edge on the second host of each. Clients ask
again and again, every other one for a stream; one that gets no connection asks the other edge. Faults come at fixed
shares of the time, the last at four fifths of it. Ends with 1 where a request was refused.
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

from tests.edge.edged import Edged, Layout, Load

from muster.sandbox import Sandbox

NAME = "edge-hour"
LAYOUT = Layout({"kimi-a": ("node0", "node1"), "kimi-b": ("node2", "node3")}, ("node1", "node3"))
Fault = Callable[[Edged], object]


def timetable() -> Mapping[float, tuple[str, Fault]]:
    """Return share of the duration -> what is done then, and how."""
    return {
        0.05: ("a key is added", lambda there: there.new_key("late")),
        0.10: ("KILL of an engine", lambda there: there.sh("node0", "pkill -KILL -f '[v]llm serve'")),
        0.25: ("STOP of an engine", lambda there: there.sh("node2", "pkill -STOP -f '^VLLM::EngineCore'")),
        0.40: ("a setting of the edges changes", lambda there: there.done("edge", edge_silence=500)),
        0.50: ("a key is revoked", lambda there: there.key("revoke", "late")),
        0.60: ("the power of a head goes", lambda there: there.box.kill_power("node2")),
        0.70: ("the head is back", lambda there: there.box.start("node2")),
        0.80: ("an edge is reloaded", lambda there: there.sh("node3", "systemctl reload haproxy")),
    }


def measured(there: Edged, minutes: float, clients: int) -> dict[str, Any]:
    """Carry out the timetable under load, and return when each fault came and what became of the requests."""
    key, happened = there.new_key("load"), []
    with Load(there, key, clients, LAYOUT.edges) as load:
        began = time.monotonic()
        for share, (what, fault) in timetable().items():
            time.sleep(max(0.0, began + share * minutes * 60 - time.monotonic()))
            row = {"at_s": round(time.monotonic() - began), "what": what, "before": dict(load.counts)}
            fault(there)
            happened.append(row)
            print(row, flush=True)
        time.sleep(max(0.0, began + minutes * 60 - time.monotonic()))
    lost = load.others("done")
    return {"minutes": minutes, "clients": clients, "faults": happened, "counts": dict(load.counts), "why": list(lost)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--token-seconds", type=float, default=0.05, help="of a step of the stand-in engines")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    box = Sandbox.up(NAME, 4)
    try:
        with tempfile.TemporaryDirectory() as place:
            there = Edged(box, Path(place), LAYOUT)
            there.bring_up(args.token_seconds)
            rows = measured(there, args.minutes, args.clients)
    finally:
        box.down()
    rows |= {"date": date.today().isoformat(), "cores": os.cpu_count(), "load": os.getloadavg()}
    print(json.dumps(rows["counts"]), *rows["why"], sep="\n")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if rows["counts"].get("refused") or rows["counts"].get("unreached") else 0


if __name__ == "__main__":
    sys.exit(main())
