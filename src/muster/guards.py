"""Every guard of a group asked over SSH at once; a host that cannot be reached is an answer too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyinfra.api.config import Config
from pyinfra.api.connect import disconnect_all
from pyinfra.api.state import State
from pyinfra.context import ctx_state

from muster import inventory
from muster.plan import Plan
from muster.planning import plan_for
from muster.preflight import sessions

SECONDS = 60
"""For one question; `ctl` itself gives up after 10."""


@dataclass(frozen=True)
class Guards:
    """The guards of one group, connected."""

    plan: Plan
    state: State
    unreached: Mapping[str, str]

    def ask(self, verb: str, **more: Any) -> dict[str, dict[str, Any]]:
        """Ask every reachable host's guard.

        Args:
            verb: `status`, `logs`, `stop`, `restart` or `resume`.
            more: as `muster.host.guard` takes.

        Returns:
            Host -> answer; {error: text} for a host that gave none.
        """
        request = {"guard": {"group": self.plan.group, "verb": verb, **more}}
        hosts = sessions.hosts_of(self.state)
        reached = [hosts[name] for name in self.plan.hosts if name not in self.unreached]
        told = sessions.each(
            reached,
            lambda host: sessions.ask(
                self.state, host, request, f"guard {verb}", seconds=SECONDS + more.get("wait", 0)
            ),
        )
        found = {name: {"error": why} for name, why in self.unreached.items()}
        return found | {name: answer.get("guard", answer) for name, answer in told.items()}


@contextmanager
def guards_of(inventory_file: str, recipe_name: str, overrides: Mapping[str, Any]) -> Iterator[Guards]:
    """Connect to every host of a group that can be reached, and disconnect at the end.

    Args:
        inventory_file, recipe_name: as for `muster plan`.
        overrides: settings that beat the rest.

    Raises:
        Refusal: no plan.
    """
    hosts = inventory.load(inventory_file, overrides)
    plan = plan_for(recipe_name, inventory.from_pyinfra(hosts, name=inventory_file))
    state = State(hosts, Config())
    ctx_state.set(state)
    try:
        yield Guards(plan, state, sessions.connect(state))
    finally:
        disconnect_all(state)
