"""Asks the edges before the groups of an inventory how much clients ask for now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.edge.edge_plan import EdgePlan, backend
from muster.hosts.all_hosts import each, hosts_of
from muster.hosts.connect import connect
from muster.hosts.programs import Answer
from muster.hosts.run_programs import run_program
from muster.status.fleet_status import EdgeLoad

_SECONDS = 15


class Edges:
    """The edges of an inventory."""

    def __init__(self, plan: EdgePlan, state: State, names: Collection[str]) -> None:
        """`names`: of the edge hosts."""
        self.plan, self._state, self._names = plan, state, names

    def load(self) -> EdgeLoad:
        """Ask every edge at once; one that was out of reach before is tried again."""
        silent = dict(connect(self._state, self._names)) if self._names else {}
        there = [host for name, host in hosts_of(self._state).items() if name in self._names and name not in silent]
        answers = each(there, self._ask)
        for host in there:
            answer = answers[host.name]
            if "error" in answer:
                silent[host.name] = str(answer["error"])
                host.disconnect()
            elif not answer["running"]:
                silent[host.name] = "HAProxy does not run"
        counts = Counter[str]()
        for answer in answers.values():
            counts.update(answer.get("asked", {}))
        return EdgeLoad({model: counts[backend(model)] for model in self.plan.models}, silent)

    def _ask(self, host: Host) -> Answer:
        return run_program(self._state, host, "edge_load", {}, seconds=_SECONDS)
