"""One change of a group, from its lock to its end: held on every host or on none, each step recorded before it begins.

A session to each host stays open for as long as the run lasts; its end is the proof that whoever held the lock is gone.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from gevent.lock import RLock
from pydantic import ValidationError
from pyinfra import logger
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared.operator import machine, user
from muster.errors import Refusal
from muster.hosts import programs
from muster.hosts.all_hosts import each, hosts_of
from muster.hosts.answer_fields import ChangeRecord, ChangeState
from muster.hosts.open_session import SILENCE, OpenSession, can_open
from muster.hosts.printable import one_line
from muster.hosts.ssh_session import Broken
from muster.plan import change as changes
from muster.plan.change import Change, Command, Found, Phase, Unfinished

RETURN_AFTER = 300
"""Seconds after which hosts whose change was cut start what is in place by themselves."""

Return = Callable[[str], "Mapping[str, Any] | None"]
Errors = dict[str, str]
Message = Mapping[str, Any]


@dataclass
class Transaction:
    """A change while this run makes it.

    Args:
        change: as its record says, in its latest phase.
        hosts: of the group, the head first.
        found: what each host showed when the run was planned.
        back: host -> what `on_host.return_change` reads should the change be cut, None where it stops nothing, or is to
            stay down.
        groups: host -> the groups that the change is of there, where that is not the change's own alone; `found` is of
            the first.
        replaces: name of the group that this one takes the place of; empty for none.
    """

    change: Change
    hosts: tuple[str, ...]
    found: Mapping[str, Found]
    back: Return = lambda _host: None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replaces: str = ""
    ended_exchange: bool = False
    """Whether this run has ended the exchange of files that an earlier change was cut in."""
    _hosts: dict[str, Host] = field(default_factory=dict)
    _sessions: dict[str, OpenSession] = field(default_factory=dict)
    _done: dict[str, Errors] = field(default_factory=dict)
    _lock: Any = field(default_factory=RLock)

    @property
    def sentence(self) -> str:
        """What is true when this run ends here."""
        what, group = self.change.what, self.change.group
        alone = f"; if nobody does, the hosts start their ranks by themselves after {RETURN_AFTER} s"
        if self.change.phase == "prepared" and self.ended_exchange and self.unfinished is not None:
            ended = "this run has ended its exchange of files, and has stopped no rank"
            return f"unfinished: {self.unfinished.change.what}; {ended}; run the deploy again{alone}"
        if self.change.phase == "prepared":
            return f"the running group {group} was not touched"
        if self.change.command == "remove":
            left = ", and some of its files may be gone" if self.change.phase == "committing" else ""
            return f"unfinished: {what}; ranks of group {group} may be stopped{left}; run the same command again"
        stopped = self.replaces or group
        place = {
            "stopping": f"ranks of group {stopped} may be stopped, the former plan's files are in place",
            "committing": f"group {stopped} is stopped, some hosts may have the new plan's files",
            "committed": f"the new plan's files are in place, and group {group} is starting",
            "started": f"group {group} has started, and is not verified",
        }[self.change.phase]
        if self.change.phase not in ("stopping", "committing") or self.change.command == "stop":
            alone = ""
        return f"unfinished: {what}; {place}; run the same command again to finish it{alone}"

    @property
    def unfinished(self) -> Unfinished | None:
        """An earlier change that was cut; this one ends it."""
        return changes.unfinished(self.found)

    def lost(self) -> str:
        """Return the host whose lock this run no longer holds, and why; empty while it holds all."""
        return next((f"{host}: {session.lost}" for host, session in self._sessions.items() if session.lost), "")

    def fence(self, host: str) -> dict[str, str] | None:
        """Return what a host's programs must find before they do a step of this change."""
        return {"group": self._groups(host)[0], "change": self.change.id} if host in self._sessions else None

    def _groups(self, host: str) -> tuple[str, ...]:
        return self.groups.get(host, (self.change.group,))

    def take(self, state: State) -> Errors:
        """Take the lock on every host or on none; whichever host asks first does it for all.

        Returns:
            Host -> why the run must not go on; empty when the lock is held everywhere.
        """
        return self._once("take", lambda: self._take(state))

    def record(self, phase: Phase) -> Errors:
        """Record a phase on every host before it begins; whichever host asks first does it for all.

        Returns:
            Host -> why it could not be recorded; when `stopping` could not be, no host has a record.
        """
        return self._once(phase, lambda: self._record(phase))

    def turn_back(self, digest: str, head: str, back: Return) -> Errors:
        """Make this a change to a plan that hosts keep, which they put in place by themselves if they are left alone.

        Args:
            digest: of the kept plan.
            head: of the kept plan.
            back: as for the transaction.

        Files that are being exchanged are put in place first. From there on this is a change whose files are in place
        whole, or whose every host has recorded that they are being exchanged.
        """
        with self._lock:
            if self.change.phase == "committing":
                self._tell({"do": "settle", "forward": True}, self.hosts)
            self.back, self._done = back, {"take": {}}
            turned = dataclasses.replace(self.change, command="rollback", before=self.change.after, after=digest)
            self.change = turned.at("committing")
            hosts = (head, *(host for host in self.hosts if host != head))
            wire = self.change.to_wire()

            def message(host: str) -> dict[str, Any]:
                return {"do": "turn", "change": wire, "way": back(host)}

            return self._tell_in_order("committing", message, hosts)

    def finish(self) -> Errors:
        """Forget the record on every host: what runs is what was planned, and is proven."""
        return self._once("finish", lambda: self._tell({"do": "finish"}, self.hosts))

    def _once(self, step: str, work: Callable[[], Errors]) -> Errors:
        with self._lock:
            if step not in self._done:
                self._done[step] = work()
            return self._done[step]

    def _take(self, state: State) -> Errors:
        hosts = hosts_of(state)
        self._hosts = {name: hosts[name] for name in sorted(self.hosts) if can_open(hosts[name])}
        now: dict[str, Found] = {}
        try:
            # Everybody begins with the same host: of two who come at once one gets it, and nobody waits for the other.
            self._open(state, list(self._hosts.values())[:1], now)
            self._open(state, list(self._hosts.values())[1:], now)
            moved = changes.changed_since(self.found, now)
            if moved:
                raise Refusal(
                    f"{', '.join(moved)}: another change has come in between",
                    needed="hosts as they were when this run compared them with the plan",
                    fix="run again. Nothing was touched",
                )
            self._settle(now)
        except Refusal as refusal:
            for session in self._sessions.values():
                session.close()
            self._sessions.clear()
            return dict.fromkeys(self.hosts, str(refusal))
        return {}

    def _settle(self, now: Mapping[str, Found]) -> None:
        """End the exchange of files that an earlier change was cut in, before anything else is put in its place."""
        if self.change.command == "remove":
            return
        settlement = changes.settlement(now)
        self.ended_exchange = bool(settlement.forward or settlement.back)
        back = changes.order("stopping", tuple(host for host in self.hosts if host in settlement.back))
        errors = self._tell({"do": "settle", "forward": True}, settlement.forward)
        for part in (back[:1], back[1:]):
            errors |= self._tell({"do": "settle", "forward": False}, part)
        for host, error in errors.items():
            logger.warning(f"{host}: the files of the change that was cut cannot be put in place: {error}")

    def _open(self, state: State, hosts: list[Host], now: dict[str, Found]) -> None:
        def one(host: Host) -> Found | Refusal:
            try:
                session = OpenSession(state, host, "hold_change", self._request(host.name))
                self._sessions[host.name] = session
                first = session.next()
                if "busy" in first:
                    holder = ChangeRecord.model_validate(first["busy"]).model_dump()
                    group = one_line(str(first.get("group")), 100)
                    return changes.busy(group, host.name, changes.from_wire(holder))
                seen = ChangeState.model_validate(first.get("state")).model_dump()
            except (Broken, ValidationError) as error:
                why = "an answer of another form" if isinstance(error, ValidationError) else str(error)
                return Refusal(
                    f"{host.name}: the lock of group {self.change.group} cannot be taken: {why}",
                    needed="a session that stays open for as long as the change lasts",
                    fix="run again when the host answers. Nothing was touched",
                )
            return changes.seen({host.name: seen})[host.name]

        for name, result in each(hosts, one).items():
            if isinstance(result, Refusal):
                raise result
            now[name] = result

    def _request(self, host: str) -> dict[str, Any]:
        groups = list(self._groups(host))
        return {"change": self.change.to_wire(), "groups": groups, "silence": SILENCE, "back": self._back(host)}

    def _back(self, host: str) -> dict[str, Any] | None:
        way = self.back(host)
        if way is None:
            return None
        program = programs.bundle({"return_change": {"group": self.change.group, "change": self.change.id}})
        return {"way": way, "program": program, "after": RETURN_AFTER}

    def _record(self, phase: Phase) -> Errors:
        errors = self._tell_in_order(phase, {"do": "phase", "phase": phase}, self.hosts)
        if not errors:
            self.change = self.change.at(phase)
        elif self.change.phase == "prepared" and self.unfinished is None:
            self._tell({"do": "finish"}, self.hosts)
        return errors

    def _tell_in_order(
        self, phase: Phase, message: Message | Callable[[str], Message], hosts: tuple[str, ...]
    ) -> Errors:
        order = changes.order(phase, hosts)
        cut = 1 if order[0] == hosts[0] else -1  # the head by itself, the members all at once
        return self._tell(message, order[:cut]) or self._tell(message, order[cut:])

    def _tell(self, message: Message | Callable[[str], Message], hosts: tuple[str, ...]) -> Errors:
        def one(host: Host) -> str:
            try:
                answer = self._sessions[host.name].ask(message(host.name) if callable(message) else message)
            except Broken as error:
                return f"the lock is lost: {error}"
            return str(answer.get("error") or "")

        there = [self._hosts[host] for host in hosts if host in self._sessions]
        return {host: error for host, error in each(there, one).items() if error}


def begin(
    group: str,
    command: Command,
    before: str,
    after: str,
    *,
    hosts: tuple[str, ...],
    found: Mapping[str, Found],
    groups: Mapping[str, tuple[str, ...]] | None = None,
) -> Transaction:
    """Return a new change of this person on this machine, which no host knows of yet.

    Args:
        group: its name.
        command: what was asked for.
        before, after: digests, as for `Change`.
        hosts: of the group, the head first.
        found: what each host showed when the run was planned.
        groups: as for `Transaction`.
    """
    since = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    change = Change(uuid.uuid4().hex, group, command, user(), machine(), since, before, after)
    return Transaction(change, hosts, found, groups=groups or {})
