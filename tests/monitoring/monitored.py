"""A group on two sandbox hosts, and a Prometheus with its Alertmanager that watches it from a third."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

from tests import standin
from tests.deploys.conftest import GROUP, HOSTS, GuardedTestbed

MONITOR = "node2"
PATIENCE = 20
INVENTORY = """\
from muster.sandbox.as_inventory import hosts as _hosts
_all, _settings = _hosts({name!r}), {settings!r}
for _name, _data in _all[2:]:
    del _data["gpu"], _data["gpus"]
ranks, monitor = (_all[:2], _settings), (_all[2:], _settings)
"""


class Monitored(GuardedTestbed):
    """Two hosts of a group, and a third with Prometheus."""

    inventory = INVENTORY
    patience, interval = PATIENCE, 1
    watches = ("--data", f"_recipe={GROUP}")
    kept: dict[str, Any] = {}
    """Settings of every run from now on."""

    def bring_up(self) -> None:
        """Deploy the group, then what watches it, and wait until every target is scraped."""
        self.prepare_group()
        self.watch(targets=4)

    def prepare_group(self) -> None:
        """Deploy the group."""
        for name in HOSTS:
            standin.place(self.box.tree(name))
        self.deploy()

    def watch(self, targets: int) -> None:
        """Deploy what watches the group, and wait until so many targets are scraped."""
        self.done("monitoring")
        self.wait("every target up", lambda: len(self.targets()) == targets, 60)

    def start(self, deploy: str = "kimi_k2_instruct", *flags: str, **settings: Any) -> Any:
        hosts = {host.name: host.address for host in self.box.hosts}
        networks = [hosts[MONITOR], hosts["node0"].rpartition(".")[0] + ".1"]
        given = {
            "client_networks": networks,
            "monitor_networks": networks,
            "monitoring_patience": self.patience,
            "monitoring_interval": self.interval,
            **self.kept,
        }
        if deploy == "monitoring":
            flags = (*flags, *self.watches)
        return super().start(deploy, *flags, **{**given, **settings})

    def ask(self, port: int, path: str, **query: str) -> Any:
        """Ask Prometheus (9090) or Alertmanager (9093) on its own machine."""
        address = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(query)}"
        return json.loads(self.box.exec(MONITOR, ["curl", "-sfg", "--max-time", "10", address]).stdout)

    def query(self, text: str) -> list[tuple[dict[str, str], float]]:
        """Return the series of an instant query, with labels and value."""
        found = self.ask(9090, "/api/v1/query", query=text)["data"]["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def targets(self) -> set[tuple[str, str]]:
        return {(labels["job"], labels["host"]) for labels, value in self.query("up") if value == 1}

    def told(self) -> set[tuple[str, str]]:
        """Return alert and host of what Alertmanager would tell somebody: firing, and made redundant by no other."""
        alerts = self.ask(9093, "/api/v2/alerts", active="true", inhibited="false", silenced="false")
        return {(each["labels"]["alertname"], each["labels"].get("host", "")) for each in alerts}

    def fired(self, seconds: float, state: str = "firing") -> set[str]:
        """Return the alerts that fired, or were in another state, at some time of the last seconds."""
        firing = f'ALERTS{{alertstate="{state}"}}[{round(seconds)}s]'
        found = self.query(f"count by (alertname) (count_over_time({firing}))")
        return {labels["alertname"] for labels, _ in found}
