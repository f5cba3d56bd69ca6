"""A change of a group as a transaction: its phases, the record that hosts keep of it, what a newcomer does. Pure.

One change per group at a time. Whoever changes a group holds a lock on every host, or on none. Before anything is
stopped each host has the change's record on disk, and each step is recorded before the next one begins:

    prepared    the lock is held; files may be staged; what runs was not touched      no record on disk
    stopping    the record is on every host; ranks are being stopped                  the former files are in place
    committing  no rank is left; staged files are being put in place                  files may be mixed
    committed   the new files are in place on every host; ranks may be starting       the new files are in place
    started     the group was ready; it has not been verified yet                     the new files are in place

A verified change has no record any more. The head is the last to record `committing`: from that moment on the change
goes forward, before it every host can start what it ran. So hosts that are left alone need no vote: a member that does
not know follows its head (`on_host.return_change`). A host records that it begins to put files in place before it does:
it has neither plan whole from there on, and goes forward as soon as it is left alone, after a reboot too. Another run
ends such an exchange on every host before it does anything else (`settlement`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from muster.errors import Refusal

Phase = Literal["prepared", "stopping", "committing", "committed", "started"]
PHASES: tuple[Phase, ...] = get_args(Phase)

Command = Literal["deploy", "rollback", "restart", "stop", "resume", "remove"]


@dataclass(frozen=True)
class Change:
    """What hosts know of a change.

    Args:
        id: random; only equality is compared.
        group: that is changed.
        command: what was asked for.
        who, origin: the person and the control machine.
        since: when it began, `2026-11-26T12:03:11Z`.
        before: digest of the plan that was on the hosts; "" for none, or where they differed.
        after: digest of the plan that is to run; "" for none.
        phase: how far it is.
        returned: when this host, left alone, started what was in place; "" otherwise.
        exchanging: whether this host has begun to put files in place and has not come to the end; "" otherwise.
    """

    id: str
    group: str
    command: Command
    who: str
    origin: str
    since: str
    before: str
    after: str
    phase: Phase = "prepared"
    returned: str = ""
    exchanging: str = ""

    def at(self, phase: Phase) -> Change:
        """Return the same change in another phase."""
        return dataclasses.replace(self, phase=phase)

    def to_wire(self) -> dict[str, Any]:
        """Return plain data, as hosts keep it."""
        return dataclasses.asdict(self)

    @property
    def what(self) -> str:
        """The change in words: `plan x -> y`, `restart of plan x`, `removal of plan x`."""
        if self.command == "remove":
            return f"removal of {f'plan {self.before}' if self.before else 'the group'}"
        if self.command in ("deploy", "rollback") and self.before != self.after:
            return f"plan {self.before or 'none'} -> {self.after}"
        return f"{self.command} of plan {self.after or 'none'}"

    @property
    def whose(self) -> str:
        """Who began it, where and when."""
        return f"{self.who}@{self.origin} at {self.since}"


def from_wire(data: Mapping[str, Any] | None) -> Change | None:
    """Return the change of a record that a host sent; None where there is none, or it is of another form."""
    names = {field.name for field in dataclasses.fields(Change)}
    known = {key: value for key, value in (data or {}).items() if key in names and isinstance(value, str)}
    if known.get("phase") not in PHASES or not {"id", "group", "command"} <= set(known):
        return None
    return Change(**{**dict.fromkeys(("who", "origin", "since", "before", "after"), ""), **known})  # type: ignore[arg-type]


def order(phase: Phase, hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the order in which hosts record a phase, one after the other where it matters: the head decides.

    Args:
        phase: to record.
        hosts: of the group, the head first.

    Until `committing` hosts that are left alone go back, from there on forward: the head is the first to say that the
    group may go back, and the last to say that it must not.
    """
    return hosts if phase == "stopping" else (*hosts[1:], *hosts[:1])


@dataclass(frozen=True)
class Found:
    """What one host shows of changes.

    Args:
        holder: the change whose lock is held there by a live process; None where the lock is free.
        record: the change that was recorded and not finished.
        installed: digest of the plan whose files are in place; "" for none.
        locked: whether a live process holds the lock, also where it does not say for which change.
    """

    holder: Change | None = None
    record: Change | None = None
    installed: str = ""
    locked: bool = False


def seen(states: Mapping[str, Mapping[str, Any]]) -> dict[str, Found]:
    """Return host -> what it shows, from what `on_host.change_record.state` answered there."""
    found = {}
    for host, change in states.items():
        locked = bool(change.get("locked"))
        found[host] = Found(
            from_wire(change.get("holder")) if locked else None,
            from_wire(change.get("record")),
            str(change.get("installed") or ""),
            locked,
        )
    return found


def require_free(group: str, found: Mapping[str, Found]) -> None:
    """Refuse to go on while somebody changes the group.

    Args:
        group: its name.
        found: by host.

    Raises:
        Refusal: whose change it is, and how far; nothing was touched.
    """
    for host, state in found.items():
        if state.locked:
            raise busy(group, host, state.holder)


def busy(group: str, host: str, holder: Change | None) -> Refusal:
    """Return the refusal of a group that somebody else is changing.

    Args:
        group: its name.
        host: where the lock is held.
        holder: for which change, where that is known.
    """
    if holder is None:
        found = f"{host}: another change of group {group} holds its lock"
    else:
        clock = holder.since.partition("T")[2].rstrip("Z") or holder.since
        found = (
            f"{host}: {holder.who}@{holder.origin} has been changing group {group} since {clock} UTC"
            f" ({holder.what}, phase {holder.phase})"
        )
    return Refusal(
        found,
        needed="one change of a group at a time",
        fix="wait until it has ended; a lock ends with the process that holds it. Nothing was touched",
    )


Where = Literal["before", "after", "mixed"]
_PLACES: dict[Literal["deploy", "remove"], dict[Where, str]] = {
    "deploy": {
        "before": "the former plan's files are in place on every host",
        "after": "the new plan's files are in place on every host",
        "mixed": "some hosts have the new plan's files, some do not",
    },
    "remove": {
        "before": "the group's files are in place on every host",
        "after": "no host has a plan of the group",
        "mixed": "some hosts have the group's files, some do not",
    },
}


@dataclass(frozen=True)
class Unfinished:
    """A change whose holder is gone and that nobody has finished.

    Args:
        change: in its latest phase on any host.
        hosts: that have its record.
        where: which files are in place: those of before, of after, or some of both.
    """

    change: Change
    hosts: tuple[str, ...]
    where: Where

    @property
    def sentence(self) -> str:
        """What is true now."""
        change = self.change
        place = _PLACES["remove" if change.command == "remove" else "deploy"][self.where]
        back = "; left alone, hosts have started what is in place" if change.returned else ""
        return (
            f"a change is unfinished: {change.what}, by {change.whose}, was cut in phase {change.phase}; {place}{back}"
        )

    def next_step(self, digest: str) -> str:
        """Return what a run with a plan of this digest does to it.

        Args:
            digest: of the run's own plan.
        """
        if digest == self.change.after:
            return "this run finishes it"
        return "this run takes it back" if digest == self.change.before else "this run replaces it"

    @property
    def fix(self) -> str:
        """What a person does next."""
        if self.change.command == "remove":
            return "run the removal again to finish it, or the deploy to have the group back"
        return (
            "run the deploy again: with the same settings it finishes the change, with the former ones it takes it back"
        )


def unfinished(found: Mapping[str, Found]) -> Unfinished | None:
    """Return the change that was cut; None where every change has ended.

    Args:
        found: by host; hosts that were not asked are missing.

    The latest phase counts, of the newest change: a host that was away may still hold the record of an older one.
    """
    records = [state.record for state in found.values() if state.record is not None]
    if not records:
        return None
    newest = max(records, key=lambda record: (record.since, PHASES.index(record.phase)))
    same = [record for record in records if record.id == newest.id]
    latest = max(same, key=lambda record: PHASES.index(record.phase))
    returned = next((record.returned for record in same if record.returned), "")
    installed = {state.installed for state in found.values()}
    where: Where = "mixed"
    if installed == {latest.after}:
        where = "after"
    elif latest.after not in installed:
        where = "before"
    hosts = tuple(host for host, state in found.items() if state.record is not None and state.record.id == newest.id)
    return Unfinished(dataclasses.replace(latest, returned=returned), hosts, where)


@dataclass(frozen=True)
class Settlement:
    """How a newer run ends the exchange of files that an earlier one was cut in.

    Args:
        forward: hosts that put the files of the earlier change in place.
        back: hosts on which none of them is in place, and none will be.
    """

    forward: tuple[str, ...]
    back: tuple[str, ...]


def settlement(found: Mapping[str, Found]) -> Settlement:
    """Return how an exchange ends that was cut; no host in it where none was.

    Args:
        found: by host, under the lock or as planned with.

    The head is the last to record `committing`: only where every record says so a host can have begun. A change that
    was turned back keeps its id: where one host has begun, those of the same plan go forward.
    """
    cut = unfinished(found)
    records = {host: state.record for host, state in found.items() if state.record is not None}
    own = {host: record for host, record in records.items() if cut is not None and record.id == cut.change.id}
    begun = {record.after for record in own.values() if record.exchanging or record.phase in ("committed", "started")}
    exchanged = {host: record.after in begun for host, record in own.items() if record.phase == "committing"}
    return Settlement(
        tuple(host for host, forward in exchanged.items() if forward),
        tuple(host for host, forward in exchanged.items() if not forward),
    )


def changed_since(before: Mapping[str, Found], now: Mapping[str, Found]) -> list[str]:
    """Return the hosts on which another change has come or gone since they were probed.

    Args:
        before: as the plan was compared with.
        now: under the lock.
    """

    def trace(state: Found) -> tuple[str, ...]:
        record = state.record
        return (state.installed, *((record.id, record.phase, record.exchanging) if record else ()))

    return [host for host, state in now.items() if host in before and trace(before[host]) != trace(state)]
