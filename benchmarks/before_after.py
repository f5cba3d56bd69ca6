"""Why the guard exists, in one picture: the same two kills with plain units and with guards, as a client sees them.

    python benchmarks/before_after.py [--engine standin|real] [--only guard|systemd] [--victim head|headless]
                                      [--seconds S] [--keep NAME]
    python benchmarks/before_after.py --draw [--engine standin|real]

Needs root: deploys the group on two sandbox hosts with `supervisor = "systemd"` and with "guard", KILLs the headless
rank and in a second run the head's vLLM, and asks for a completion of every DP rank and for `/health` once a second
throughout. What was measured is kept in benchmarks/results/; docs/before_after.svg is drawn from that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.faults.group import ENDPOINT, HEAD, HOSTS, KILL, MEMBER, RANKS, Group  # noqa: E402

from muster.sandbox import Sandbox, vllm_wheel  # noqa: E402

PLAIN = "muster-kimi-k2-instruct-vllm.service"
BEFORE = 20.0
"""Seconds watched before the kill."""
SECONDS = {"standin": 100.0, "real": 270.0}
"""Seconds watched after it: the real engine takes up to 130 s to load on two cores."""
HEALED, ENOUGH = 20.0, 150.0
"""Seconds without a failure after which a run is over, and seconds that it lasts at least after the kill."""
PATIENCE = {"standin": 5.0, "real": 10.0}
"""Seconds a client waits for one completion of one token."""
ENGINES = {"standin": "stand-in engine", "real": f"vLLM {vllm_wheel.VERSION}, CPU build"}
VICTIMS = {"headless": MEMBER, "head": HEAD}
SUPERVISORS = {"systemd": "plain units, Restart=always", "guard": "guards"}


class Client(threading.Thread):
    """Asks once a second, or as soon as the last answer is in; notes when, for how long, and whether it was well."""

    def __init__(self, origin: float, ask: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self.rows: list[tuple[float, float, bool]] = []
        self._origin, self._ask = origin, ask
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            well = self._ask()
            spent = time.monotonic() - begun
            self.rows.append((round(begun - self._origin, 2), round(spent, 2), well))
            self._over.wait(max(1.0 - spent, 0.0))

    def end(self) -> list[tuple[float, float, bool]]:
        self._over.set()
        self.join(30)
        return self.rows


def watch(group: Group, supervisor: str, host: str, engine: str, seconds: float) -> dict[str, Any]:
    """Kill what the unit of one host runs, and return what clients saw; times count from the kill."""
    origin = time.monotonic() + BEFORE
    patience = PATIENCE[engine]
    clients = {
        f"rank {rank}": Client(origin, lambda rank=rank: group.complete(rank, timeout=patience)) for rank in RANKS
    }
    clients["/health"] = Client(origin, lambda: group.get("/health", ENDPOINT)[0] == 200)
    if supervisor == "guard":
        clients["/ready"] = Client(origin, group.ready)
    time.sleep(max(origin - time.monotonic(), 0))
    if supervisor == "guard":
        group.signal(host, "vllm", KILL)
    else:
        group.sh(host, f"systemctl kill --kill-whom=main --signal=KILL {PLAIN}")
    late = time.monotonic() - origin
    until = time.monotonic() + seconds
    while time.monotonic() < until and not all(healed(client.rows) for client in clients.values()):
        time.sleep(1)
    return {"killed_at": round(late, 3), "lanes": {name: client.end() for name, client in clients.items()}}


def healed(rows: list[tuple[float, float, bool]]) -> bool:
    """Some time after the kill, and all well for the last HEALED seconds."""
    return bool(rows) and rows[-1][0] > ENOUGH and all(row[2] for row in rows if row[0] >= rows[-1][0] - HEALED)


def measure(box: Sandbox, engine: str, supervisors: list[str], victims: list[str], seconds: float) -> None:
    """Each kill under each supervisor; each result is kept as soon as it is there."""
    with Group(box, engine) as group:
        for supervisor in supervisors:
            for number, victim in enumerate(victims):
                host = VICTIMS[victim]
                if number == 0:
                    group.deploy(supervisor)
                elif supervisor == "systemd":
                    # What is left does not heal: everything is stopped and started for the next run.
                    group.both(f"systemctl stop {PLAIN}")
                    group.both(f"systemctl start {PLAIN}")
                group.wait("every rank answers", lambda: group.answers(30), 600, every=1)
                if supervisor == "guard":
                    group.until_ready()
                    group.reset_budget()
                keep(engine, f"{supervisor}/{victim}", watch(group, supervisor, host, engine, seconds))
            for host in HOSTS:
                group.sh(host, "systemctl stop 'muster-*'")


def place(engine: str) -> Path:
    """Where the newest or the day's measurement of an engine is kept."""
    files = sorted((ROOT / "benchmarks" / "results").glob(f"before-after-{engine}-*.json"))
    today = ROOT / "benchmarks" / "results" / f"before-after-{engine}-{date.today().isoformat()}.json"
    return files[-1] if files and not today.exists() else today


def keep(engine: str, name: str, run: dict[str, Any]) -> None:
    """Add one run to the day's file."""
    file = ROOT / "benchmarks" / "results" / f"before-after-{engine}-{date.today().isoformat()}.json"
    kept = json.loads(file.read_text()) if file.exists() else {"runs": {}}
    runs = {**kept["runs"], name: run}
    about = {"date": date.today().isoformat(), "engine": ENGINES[engine], "runs": runs}
    file.write_text(json.dumps(about) + "\n")
    answered = {lane: spans(rows)[-1] for lane, rows in run["lanes"].items()}
    print(f"{name}: at the end {answered}", flush=True)


def spans(rows: list[Any]) -> list[tuple[float, float, bool]]:
    """Requests in a row with one outcome, as (from, until, well): each lasts until the next one was sent."""
    ends = [after[0] for after in rows[1:]] + [rows[-1][0] + rows[-1][1]]
    requests = [(begun, end, well) for (begun, _, well), end in zip(rows, ends, strict=True)]
    out = []
    for well, several in itertools.groupby(requests, key=lambda row: row[2]):
        group = list(several)
        out.append((group[0][0], group[-1][1], well))
    return out


def draw(engine: str) -> Path:
    """Draw the kept runs: colours that stay apart for colour-blind readers, and a hatch that stays apart in print."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "muster", "font.size": 9, "hatch.linewidth": 0.6})
    kept = json.loads(place(engine).read_text())
    good = {"facecolor": "#0072B2", "edgecolor": "#0072B2"}
    bad = {"facecolor": "#F6D5C3", "edgecolor": "#D55E00", "hatch": "////"}
    figure, panels = pyplot.subplots(2, 2, figsize=(10, 4.6), sharex=True, layout="constrained")
    for (row, (supervisor, about)), (column, victim) in itertools.product(
        enumerate(SUPERVISORS.items()), enumerate(VICTIMS)
    ):
        panel, run = panels[row][column], kept["runs"][f"{supervisor}/{victim}"]
        lanes = run["lanes"]
        for number, rows in enumerate(lanes.values()):
            for begun, end, well in spans(rows):
                panel.broken_barh(
                    [(begun, end - begun)], (number - 0.36, 0.72), linewidth=0.6, **(good if well else bad)
                )
        panel.axvline(0, color="black", linewidth=1.2, linestyle="--")
        panel.set_yticks(range(len(lanes)), list(lanes))
        panel.invert_yaxis()
        panel.set_title(
            f"{about}: {victim} rank killed" if victim == "headless" else f"{about}: head killed", loc="left"
        )
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[1]:
        panel.set_xlabel("seconds from SIGKILL")
    handles = [Patch(**good, label="answered, or 200"), Patch(**bad, label="failed, hung, or not 200")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"DP2 on two hosts ({kept['engine']}): one completion per rank a second", x=0.01, ha="left")
    file = ROOT / "docs" / "before_after.svg"
    figure.savefig(file, metadata={"Date": None})
    return file


def main() -> None:
    """Measure, keep, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=tuple(ENGINES), default="standin")
    parser.add_argument("--only", choices=tuple(SUPERVISORS), help="one supervisor; the other's runs stay as kept")
    parser.add_argument("--victim", choices=tuple(VICTIMS), help="one kill; the other's runs stay as kept")
    parser.add_argument("--seconds", type=float, help="watched after the kill")
    parser.add_argument("--keep", default="", help="name of a sandbox to use and leave up")
    parser.add_argument("--draw", action="store_true", help="only draw what is kept")
    given = parser.parse_args()
    # A terminated benchmark takes its hosts down too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    supervisors = [given.only] if given.only else list(SUPERVISORS)
    victims = [given.victim] if given.victim else list(VICTIMS)
    if not given.draw:
        name = given.keep or "before-after"
        try:
            box = Sandbox.up(name, 2)
            measure(box, given.engine, supervisors, victims, given.seconds or SECONDS[given.engine])
        finally:
            if not given.keep:
                Sandbox.named(name).down()
    if given.draw or not (given.only or given.victim):
        print(f"drawn: {draw(given.engine).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
