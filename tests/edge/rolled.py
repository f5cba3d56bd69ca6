"""Two groups and an edge on three sandbox hosts, deployed by the fleet's own run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muster.sandbox import serving_settings
from tests import standin
from tests.deploys.conftest import Ran
from tests.edge.edged import Edged, Layout
from tests.standin import lm_eval

RECORDED = Path(__file__).parents[1] / "bench/recorded/bench-serve-0.32.json"
BENCH = f"""\
#!{standin.PATH}/bin/python
import sys
if sys.argv[1:2] == ["bench"]:
    words = dict(zip(sys.argv, sys.argv[1:]))
    with open("/etc/standin/bench.json") as file:
        figures = file.read()
    with open(words["--result-dir"] + "/" + words["--result-filename"], "w") as file:
        file.write(figures)
    sys.exit(0)
from vllm.entrypoints.cli.main import main
sys.exit(main())
"""
EDGE, GROUPS = "node2", {"node0": "kimi-a", "node1": "kimi-b"}
LAYOUT = Layout({group: (host,) for host, group in GROUPS.items()}, (EDGE,))


class Rolled(Edged):
    """Groups that are deployed by the fleet's own run."""

    inventory = LAYOUT.whole

    def bring_up(self, token_seconds: float = 0.05) -> None:
        """Deploy the groups, on hosts that have none, and the edge."""
        self.clear()
        self.prepare(token_seconds)
        for host in GROUPS:
            (self.box.tree(host) / standin.PATH.lstrip("/") / "bin/vllm").write_text(BENCH)
            self.measures(host)
            lm_eval.wheel(self.box.tree(host) / "srv")
            self.scores(host)
        first = self.roll()
        assert first.status == 0, first.text
        self.wait("both at the edge", self.all_up, 60)

    def start(self, deploy: str = "kimi_k2_instruct", *flags: str, **settings: Any) -> Any:
        # No engine hangs here: a machine that is busy must not pass for one that does.
        given = {"stall_timeout": 60, "canary_idle": 30, "eval_requirements": [f"/srv/{lm_eval.WHEEL}"]}
        python = serving_settings.host_python(self.box.tree(EDGE))
        return super().start(deploy, *flags, **{**given, "python_version": python, **settings})

    def roll(self, *flags: str, **settings: object) -> Ran:
        return self.run("fleet", "-y", *flags, **settings)

    def states(self) -> dict[str, str]:
        """Return server -> what the edge thinks of it."""
        return {name: row["status"] for name, row in self.servers_at(EDGE).items()}

    def backend(self) -> str:
        """Return the model's name in HAProxy."""
        return self.sh(EDGE, "grep '^kimi-k2 ' /etc/haproxy/muster/models.map").split()[1]

    def addresses(self) -> dict[str, str]:
        """Return host -> address and port that the edge has its engine at."""
        return {name.rpartition("_")[2]: row["addr"] for name, row in self.servers_at(EDGE).items()}

    def ports(self) -> dict[str, int]:
        """Return host -> port that the edge has its engine at, of those that are up there."""
        up = {name.rpartition("_")[2] for name, state in self.states().items() if state == "UP"}
        return {host: int(at.rpartition(":")[2]) for host, at in self.addresses().items() if host in up}

    def held_out(self) -> list[str]:
        """Return the servers that something holds out of the edge's choice, whether they are up or down."""
        lines = [line.split() for line in self.ask_haproxy(EDGE, "show servers state").splitlines()]
        names = next(words[1:] for words in lines if words[:1] == ["#"])
        rows = [dict(zip(names, words, strict=False)) for words in lines if len(words) >= len(names)]
        return [row["srv_name"] for row in rows if row["srv_admin_state"].isdigit() and int(row["srv_admin_state"]) & 8]

    def all_up(self) -> bool:
        states = self.states()
        return len(states) == len(GROUPS) and all(state == "UP" for state in states.values())

    def measures(self, host: str, share: float = 1.0) -> None:
        """Have `vllm bench serve` on a host give recorded figures, with a share of their throughput."""
        figures = json.loads(RECORDED.read_text())
        figures |= {name: share * figures[name] for name in figures if name.endswith("throughput")}
        (self.box.tree(host) / "etc/standin/bench.json").write_text(json.dumps(figures))

    def scores(self, host: str, right: str = "0.94") -> None:
        """Have lm_eval on a host find this share of the answers right; with no number it fails."""
        (self.box.tree(host) / "etc/standin/right").write_text(right)

    def lives(self) -> dict[str, str]:
        return {host: self.life(host, f"muster-{group}.service") for host, group in GROUPS.items()}
