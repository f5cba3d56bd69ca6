"""What one run of a rename, or of a deploy beside it, does: small steps, between any two of which it may be cut.

`rename_world` has the machines, and checks what must hold.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from muster.errors import Refusal
from muster.plan import change as changes
from muster.plan.change import Change, Found, Phase
from tests.plan.simulated_hosts import BOUND, Host, Operator, Simulation, Way, require

BAD = "b2"
"""A plan that does not start."""


@dataclass
class Member(Host):
    """One group on one machine.

    Args:
        enabled: whether it starts at boot.
    """

    installed: str = ""
    running: str = ""
    group: str = ""
    enabled: bool = False

    @property
    def there(self) -> bool:
        """Whether the machine has anything of the group."""
        return bool(self.installed or self.mixed or self.staged or self.record)

    @property
    def waits(self) -> bool:
        """Whether a change of the group was cut whose files may still be put in place."""
        return self.record is not None and self.record.command != "remove"

    def has_whole(self, plan: str) -> None:
        super().has_whole(plan)
        self.enabled = True

    def clear(self) -> None:
        """Take every file of the group away."""
        self.installed, self.mixed, self.staged, self.enabled = "", "", "", False
        self.forget()


@dataclass(eq=False)
class Renamer(Operator):
    """One run of a rename, or of a deploy.

    Args:
        group: that is deployed.
        former: the group whose place it takes; "" for none.
    """

    group: str = ""
    former: str = ""
    acted: bool = False
    """Whether a rank was told to stop."""
    settled: bool = False
    """Whether what runs was verified."""


class Runs(Simulation[Member, Renamer]):
    """The steps of every run.

    Args:
        random: what happens.
        without: a rule that is left out, to see that it is missed.
        members: group -> machine -> what the machine has of the group.
        sets: plan -> its machines, the head first.
    """

    def __init__(
        self, random: random.Random, without: str, members: dict[str, dict[str, Member]], sets: dict[str, Sequence[str]]
    ) -> None:
        super().__init__(random, without)
        self.members, self.sets = members, sets
        self.verified = {"a": "a0", "b": ""}
        """Group -> the plan that its hosts keep; "" for none."""

    @property
    def all(self) -> list[Member]:
        return [member for members in self.members.values() for member in members.values()]

    @property
    def serving(self) -> list[str]:
        """The plans that serve: those that every machine of theirs runs."""
        return [
            plan for plan, names in self.sets.items() if all(self._of(plan, name).running == plan for name in names)
        ]

    def _run(self, operator: Renamer) -> Iterator[None]:
        """What `deploys.serve` does, with the decisions of `plan.change`."""
        names, plan = self.sets[operator.plan], operator.plan
        own = [self.members[operator.group][name] for name in names]
        others = [member for member in self.all if member.group != operator.group and member.there]
        former = others if operator.former else []
        former.sort(key=lambda member: not self._is_head(member, member.installed))
        probed = {member.name: member.found() for member in own}
        gone = {member.name: member.found() for member in former}
        changes.require_free(operator.group, probed)
        if former:
            changes.require_free(operator.former, gone)
        self._require_place(operator, own, others, cut=changes.unfinished(gone) is not None)
        exchanged = bool(changes.settlement(probed).forward)
        # What hosts are left with is one group that comes up: the new one once any of its files are in place.
        returns = not (any(member.installed for member in own) or (exchanged and self.without != "exchanged"))
        kept = self.verified[operator.former] if former else ""
        kept = kept if kept and {member.name for member in former} >= {*self.sets[kept]} else ""
        restart = exchanged or any(member.installed != plan or member.running != plan for member in own)
        unfinished = changes.unfinished(probed) is not None
        yield
        since = f"2026-11-26T{self.serial:06d}Z"
        change = Change(operator.name, operator.group, "deploy", operator.name, "desk", since, "", plan)
        removal = replace(change, group=operator.former, command="remove", after="")
        if former:
            yield from self._take(operator, former, removal, gone)
        if restart or unfinished or former:
            now = yield from self._take(operator, own, change, probed)
            yield from self._settle(operator, own, now)
        if restart:
            for member in own:
                self._fenced(operator, member)
                member.staged = plan
                yield
        try:
            yield from self._change(operator, own, former, change if restart else None, removal, returns)
        except Refusal:
            if operator.acted and not operator.settled and former and kept:
                yield from self._serve_again(operator, own, former, removal, kept)
            raise
        for member in own:
            if restart or unfinished or former:
                self._fenced(operator, member)
                member.forget()
            yield
        self.verified[operator.group] = plan
        for member in former:
            self._fenced(operator, member)
            require(not member.running, f"{member.name}: what runs is taken away")
            member.clear()
            yield
        if former:
            self.verified[operator.former] = ""

    def _require_place(self, operator: Renamer, own: list[Member], others: list[Member], *, cut: bool) -> None:
        names = {member.name for member in own}
        stay = {m.name for m in self.members[operator.group].values() if m.installed or m.mixed or m.record}
        if stay - names:
            raise Refusal("hosts would leave")
        if operator.former:
            if any(member.name not in names for member in others):
                raise Refusal("hosts of the former group are not here")
            if others and any(member.installed for member in own) and not cut:
                raise Refusal("both groups are there")
            begun = changes.settlement({member.name: member.found() for member in others}).forward
            if begun and self.without != "whole":
                raise Refusal("the former group's files are being exchanged")
        # A group whose files are still to be put in place counts by what waits beside their places.
        elif any(member.installed or (self.without != "waiting" and member.waits) for member in others):
            raise Refusal("another group has these GPUs")

    def _change(
        self,
        operator: Renamer,
        own: list[Member],
        former: list[Member],
        change: Change | None,
        removal: Change,
        returns: bool,
    ) -> Iterator[None]:
        operator.touched = bool(change or former)
        if former:
            yield from self._record(operator, former, removal, "stopping", "in place" if returns else "")
        if change is not None:
            yield from self._record(operator, own, change, "stopping", change.after)
        for member in [*(own if change is not None else []), *former]:
            self._fenced(operator, member)
            operator.acted = True
            member.running = ""
            yield
        failed: list[Member] = []
        if former:
            yield from self._record(operator, former, removal, "committing", "")
            # pyinfra drops a host whose step has failed, and goes on with the others up to the next gate.
            failed = [] if self.calmed or self.random.randrange(8) else [self.random.choice(former)]
            for member in former:
                if member not in failed and self.without != "disable":
                    self._fenced(operator, member)
                    member.enabled = False
                yield
            if failed and self.without != "gate":
                raise Refusal("the former group could not be disabled")
        if change is None:
            return
        yield from self._record(operator, own, change, "committing", change.after)
        for member in self.random.sample(own, len(own)):
            if member.name in {other.name for other in failed}:
                continue
            yield from member.exchange(change.after, partial(self._fenced, operator, member))
        if failed:
            raise Refusal("a host has failed")
        yield from self._record(operator, own, change, "committed", change.after)
        for member in own:
            self._fenced(operator, member)
            member.start()
            yield
        if change.after == BAD:
            raise Refusal("it does not start")
        yield from self._record(operator, own, change, "started", change.after)
        if self.serving != [change.after]:
            raise Refusal("verification fails")
        operator.settled = True

    def _serve_again(
        self, operator: Renamer, own: list[Member], former: list[Member], removal: Change, kept: str
    ) -> Iterator[None]:
        """What `former_group.serve_again` and `put_back` do."""
        for member in own:
            if member.holder is operator and self.without != "finish":
                member.forget()
            yield
        for member in own:
            self._fenced(operator, member)
            member.running = ""
            yield
            self._fenced(operator, member)
            member.installed, member.mixed, member.staged, member.enabled = "", "", "", False
            yield
        turned = replace(removal, command="rollback", after=kept, phase="committing")
        former = sorted(former, key=lambda member: self._is_head(member, kept))
        for member in former:
            self._fenced(operator, member)
            self._arm(operator, member, kept, kept=True)
            member.record = turned
            yield
        for member in former:
            self._fenced(operator, member)
            member.running = ""
            yield
        for member in self.random.sample(former, len(former)):
            yield from member.exchange(kept, partial(self._fenced, operator, member))
        yield from self._record(operator, former, turned, "committed", "kept")
        for member in former:
            self._fenced(operator, member)
            member.start()
            yield
        require(self.serving == [kept], "the way back ends, and something else serves")
        for member in former:
            self._fenced(operator, member)
            member.forget()
            yield

    def _settle(self, operator: Renamer, members: list[Member], now: dict[str, Found]) -> Iterator[None]:
        settlement = changes.settlement(now)
        for member in members:
            if member.name not in (*settlement.forward, *settlement.back):
                continue
            self._fenced(operator, member)
            operator.touched = True
            member.settle(forward=member.name in settlement.forward, now=self.now)
            yield

    def _record(
        self, operator: Renamer, members: list[Member], change: Change, phase: Phase, way: str
    ) -> Iterator[None]:
        """Record a phase; `way` is the plan that hosts which are left alone put in place."""
        by_name = {member.name: member for member in members}
        for name in changes.order(phase, tuple(by_name)):
            member = by_name[name]
            self._fenced(operator, member)
            if phase == "stopping" and way:
                self._arm(operator, member, way)
            if phase == "committing" and change.command == "remove" and self.without != "disarm":
                member.disarm()
            member.record = change.at(phase)
            if phase == "started":
                member.disarm()
            yield

    def _arm(self, operator: Renamer, member: Member, plan: str, *, kept: bool = False) -> None:
        known = plan if plan in self.sets else member.installed
        member.way = Way(operator.name, known, self._is_head(member, known), kept)
        member.timer = self.now + BOUND

    def _is_head(self, member: Member, plan: str) -> bool:
        return self.sets.get(plan, [""])[0] == member.name

    def _of(self, plan: str, name: str) -> Member:
        return self.members[plan[0]][name]
