"""Every guard of a group asked over SSH at once; a host that cannot be reached is an answer too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gevent
from pyinfra.api.config import Config
from pyinfra.api.connect import disconnect_all
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.context import ctx_state

from muster.hosts import all_hosts
from muster.plan.prepare import plan_for
from muster.plan.types import Plan
from muster.spec import inventory

SECONDS = 30
"""For one question; `ctl` itself gives up after 10."""


class Guards:
    """The guards of one group, connected."""

    def __init__(self, plan: Plan, state: State) -> None:
        self.plan, self.state = plan, state
        self.unreached: Mapping[str, str] = all_hosts.connect(state)
        """Host -> why it could not be reached."""
        self._lost: set[str] = set()
        self._asked = False

    def ask(self, verb: str, **more: Any) -> dict[str, dict[str, Any]]:
        """Ask every reachable host's guard.

        Args:
            verb: `status`, `logs` or `journal`.
            more: as `muster.on_host.ask_guard` takes; `units` by host.

        Returns:
            Host -> answer, in the plan's order; {error: text} for a host that gave none.
        """
        hosts = all_hosts.hosts_of(self.state)
        units: Mapping[str, Any] = more.pop("units", {})

        def one(host: Host) -> dict[str, Any]:
            request = {"group": self.plan.group, "command": verb, **more, "units": units.get(host.name, [])}
            return all_hosts.ask(self.state, host, {"ask_guard": request}, f"guard {verb}", seconds=SECONDS)

        self._reconnect()
        reached = [hosts[name] for name in self.plan.hosts if name not in self.unreached]
        told = {name: answer.get("guard", answer) for name, answer in all_hosts.each(reached, one).items()}
        self._lost = {name for name, answer in told.items() if set(answer) == {"error"}}
        return {name: told[name] if name in told else {"error": self.unreached[name]} for name in self.plan.hosts}

    def _reconnect(self) -> None:
        """Connect anew to hosts that were out of reach, or gave no answer the last time: they may be back."""
        if self._asked:
            for name in self._lost:
                all_hosts.hosts_of(self.state)[name].disconnect()
            again = {*self.unreached, *self._lost}
            self.unreached = all_hosts.connect(self.state, again) if again else {}
        self._asked = True


@contextmanager
def guards_of(inventory_file: str, recipe_name: str, overrides: Mapping[str, Any]) -> Iterator[Guards]:
    """Connect to every host of a group that can be reached, and disconnect at the end.

    Args:
        inventory_file, recipe_name: as for `muster plan`.
        overrides: settings that beat the rest.

    Raises:
        Refusal: no plan.
    """
    # Interrupting is how one leaves `--watch`: gevent would print it as an error first.
    gevent.get_hub().NOT_ERROR = (*gevent.get_hub().NOT_ERROR, KeyboardInterrupt)
    hosts = inventory.load(inventory_file, overrides)
    plan = plan_for(recipe_name, inventory.from_pyinfra(hosts, name=inventory_file))
    state = State(hosts, Config())
    ctx_state.set(state)
    try:
        yield Guards(plan, state)
    finally:
        disconnect_all(state)
