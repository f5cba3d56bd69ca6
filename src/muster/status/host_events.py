"""What the guards of some hosts told their journals: starts, failures, restarts, holds, in the order of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from pyinfra.api.host import Host

from muster.guard.events import KINDS
from muster.hosts.all_hosts import each, reached
from muster.hosts.connect import connected
from muster.hosts.printable import one_line
from muster.hosts.run_programs import run_program
from muster.plan.prepare import plan_for
from muster.spec import inventory, inventory_source

SECONDS = 60
"""For one host's journal."""
TEXT = 1000
FIELDS = {
    "MUSTER_EVENT": "event",
    "MUSTER_GROUP": "group",
    "MUSTER_PLAN": "plan",
    "MUSTER_GENERATION": "generation",
    "MUSTER_CAUSE": "cause",
    "MUSTER_PROCESS": "process",
    "MUSTER_BY": "by",
}
"""Field of a journal entry -> its name here."""
UNIT = "_SYSTEMD_UNIT"
"""Whose control group wrote an entry, as the journal itself saw it."""


@dataclass(frozen=True)
class HostEvent:
    """One event, as a host's guard told it.

    Args:
        at: seconds since 1970, by that host's clock.
        host: inventory name.
        event: one of `muster.guard.events.KINDS`.
        text: for people.
        group, plan, generation: what it happened to.
        cause: host where it began, where this one reports it.
        process: of the engine, where one failed.
        by: who gave the command.
    """

    at: float
    host: str
    event: str
    text: str
    group: str = ""
    plan: str = ""
    generation: str = ""
    cause: str = ""
    process: str = ""
    by: str = ""

    @property
    def when(self) -> str:
        """The time in UTC."""
        return datetime.fromtimestamp(self.at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    def as_json(self) -> dict[str, Any]:
        """Return plain data for scripts, with the time as text."""
        return {**asdict(self), "at": self.when}


def merged(answers: Mapping[str, Mapping[str, Any]]) -> list[HostEvent]:
    """Return every host's events, oldest first.

    Args:
        answers: host -> what `muster.on_host.read_journal` answered; errors are left out.
    """
    found = [
        HostEvent(
            at=line["at"],
            host=host,
            text=one_line(str(line["text"]).removeprefix("muster: "), TEXT),
            **{name: one_line(str(line["fields"].get(field, ""))) for field, name in FIELDS.items()},
        )
        for host, answer in answers.items()
        for line in answer.get("lines", ())
        if _is_event(line.get("fields", {}))
    ]
    return sorted(found, key=lambda event: event.at)


def ask(
    inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], begin: Mapping[str, float], count: int
) -> dict[str, dict[str, Any]]:
    """Read the events of every host of an inventory.

    Args:
        inventory_file: as for `muster plan`.
        recipe_name: of the group; every group's where None.
        overrides: settings that beat the rest.
        begin: as `muster.commands.journal_text.since` returns it; the newest events where empty.
        count: of events of a host, at most.

    Returns:
        Host -> what `muster.on_host.read_journal` answered; {error: text} for a host that gave no answer.

    Raises:
        Refusal: no such inventory or recipe.
    """
    hosts = inventory_source.load(inventory_file, overrides)
    # Not `muster-*` without a recipe: journalctl fails where no such unit has ever written.
    units = []
    names = [host.name for host in hosts]
    if recipe_name or "group" in overrides:
        group = inventory.from_pyinfra(hosts, name=inventory_file, recipe=recipe_name)
        units.append(f"muster-{plan_for(inventory.recipe_of(recipe_name, group), group).group}.service")
        names = [name for name in names if name in inventory.scope_of(hosts, recipe_name).members]
    request = {"units": units, **question(count), **begin}
    with connected(hosts, names=names) as there:

        def one(host: Host) -> dict[str, Any]:
            return run_program(there.state, host, "read_journal", request, seconds=SECONDS)

        answers = each(reached(there.state).values(), one)
        return {name: answers.get(name) or {"error": there.unreached[name]} for name in names}


def question(count: int) -> dict[str, Any]:
    """Return what `muster.on_host.read_journal` takes to read events: the newest, at most `count`."""
    matches = [f"MUSTER_EVENT={kind}" for kind in KINDS]
    return {"count": count, "polling": True, "fields": [UNIT, *FIELDS], "matches": matches}


def _is_event(fields: Mapping[str, str]) -> bool:
    """Whether a unit of the group that it names has written it: any program can write such fields."""
    return fields.get("MUSTER_EVENT") in KINDS and fields.get(UNIT) == f"muster-{fields.get('MUSTER_GROUP')}.service"
