"""Hosts, operators, cuts and reboots around the pure decisions of a change: what must never happen is checked here.

Nothing here knows how those decide. `simulated_hosts` has what a host keeps and how a run goes on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from muster.errors import Refusal
from muster.plan import change as changes
from muster.plan.change import Change, Found, Phase
from tests.plan.simulated_hosts import BOUND, Host, Operator, Simulation, Way, require


class World(Simulation[Host, Operator]):
    """`without` names a rule that is left out, to see that it is missed."""

    bad = "p2"
    """A plan that does not start."""

    def __init__(self, seed: int, size: int, without: str = "") -> None:
        super().__init__(random.Random(seed), without)
        self.hosts = [Host(f"h{number}") for number in range(size)]
        self.verified = ["p0"]
        """Plans that every host keeps, the one that was verified last at the end."""

    @property
    def all(self) -> list[Host]:
        return self.hosts

    @property
    def serving(self) -> str:
        """The plan that serves; "" for none. Guards run ranks only where every host carries one plan."""
        plans = {host.running for host in self.hosts}
        return plans.pop() if len(plans) == 1 else ""

    # operators

    def begin(self, plan: str) -> Operator:
        self.serial += 1
        operator = Operator(f"o{self.serial}", plan)
        operator.steps = self._deploy(operator)
        self.operators.append(operator)
        return operator

    def _way(self, operator: Operator, host: Host, plan: str, *, kept: bool = False) -> None:
        if self.without != "timer":
            host.way = Way(operator.name, plan, host is self.hosts[0], kept)
            host.timer = self.now + BOUND

    def _deploy(self, operator: Operator) -> Iterator[None]:
        """What `deploys.serve` does, with the decisions of `plan.change`."""
        probed = {host.name: host.found() for host in self.hosts}
        if self.without != "lock":
            changes.require_free("g", probed)
        cut = changes.unfinished(probed)
        settlement = changes.settlement(probed)
        restart = any(host.installed != operator.plan or host.running != operator.plan for host in self.hosts)
        restart = restart or bool(settlement.forward)
        yield
        installed = {state.installed for state in probed.values()}
        since = f"2026-11-26T{self.serial:06d}Z"
        before = installed.pop() if len(installed) == 1 else ""
        change = Change(operator.name, "g", "deploy", operator.name, "desk", since, before, operator.plan)
        if restart or cut is not None:
            now = yield from self._take(operator, self.hosts, change, probed)
            yield from self._settle(operator, now)
        if restart:
            for host in self.hosts:
                self._reach(operator, host)
                host.staged = operator.plan
                yield
            # From here on it counts as touched: hosts have its record.
            operator.touched = True
            if not settlement.forward:
                plans = {host.installed for host in self.hosts}
                require(change.before == (plans.pop() if len(plans) == 1 else ""), "a record says what was not")
            yield from self._record(operator, change, "stopping")
            for host in self.hosts:
                self._fenced(operator, host)
                host.running = ""
                yield
            yield from self._record(operator, change, "committing")
            # A disk that is full, a systemd that does not reload.
            breaks = -1 if self.calmed else self.random.randrange(4 * len(self.hosts))
            for number, host in enumerate(self.random.sample(self.hosts, len(self.hosts))):
                if host.staged != operator.plan:
                    raise Refusal("not staged as planned")
                yield from self._exchange(operator, host, operator.plan)
                if number == breaks:
                    yield from self._go_back(operator, change.at("committing"))
            yield from self._record(operator, change, "committed")
            for host in self.hosts:
                self._fenced(operator, host)
                host.running = host.installed
                yield
            if operator.plan == self.bad:
                yield from self._go_back(operator, change.at("committed"))
            yield from self._record(operator, change, "started")
        if self.serving != operator.plan or any(host.installed != operator.plan for host in self.hosts):
            raise Refusal("verification fails")
        yield
        for host in self.hosts:
            if restart or cut is not None:
                self._reach(operator, host)
                host.forget()
            yield
        if operator.touched:
            self.verified.append(operator.plan)

    def _exchange(self, operator: Operator, host: Host, plan: str) -> Iterator[None]:
        fenced = partial(self._fenced, operator, host)
        yield from host.exchange(plan, fenced, recorded=self.without != "exchanging")

    def _go_back(self, operator: Operator, change: Change) -> Iterator[None]:
        """What `go_back` does when a change has failed that acted on what runs."""
        last = self.verified[-1]
        if last == operator.plan:
            raise Refusal("nothing to go back to")
        if change.phase == "committing":
            for host in self.hosts:
                self._reach(operator, host)
                if host.way is not None:
                    host.put(host.way)
                yield
        turned = replace(change, command="rollback", before=operator.plan, after=last, phase="committing")
        for host in (*self.hosts[1:], self.hosts[0]):
            self._reach(operator, host)
            if self.without != "turn":
                self._way(operator, host, last, kept=True)
            host.record = turned if self.without != "turn" else turned.at("stopping")
            yield
        for host in self.hosts:
            self._reach(operator, host)
            host.staged = last
            yield
        for host in self.hosts:
            self._fenced(operator, host)
            host.running = ""
            yield
        for host in self.random.sample(self.hosts, len(self.hosts)):
            yield from self._exchange(operator, host, last)
        yield from self._record(operator, turned, "committed")
        for host in self.hosts:
            self._fenced(operator, host)
            host.running = host.installed
            yield
        require(self.serving == last, "the way back ends, and something else serves")
        for host in self.hosts:
            self._reach(operator, host)
            host.forget()
            yield
        raise Refusal("the change has failed, and the former plan serves")

    def _settle(self, operator: Operator, now: dict[str, Found]) -> Iterator[None]:
        """What `Transaction` does under the lock with an exchange that was cut."""
        settlement = changes.settlement(now)
        if self.without == "settle":
            return
        for host in self.hosts:
            if host.name in (*settlement.forward, *settlement.back):
                self._reach(operator, host)
                host.settle(forward=host.name in settlement.forward, now=self.now)
                yield

    def _record(self, operator: Operator, change: Change, phase: Phase) -> Iterator[None]:
        names = changes.order(phase, tuple(host.name for host in self.hosts))
        by_name = {host.name: host for host in self.hosts}
        for host in self.hosts if self.without == "head last" else [by_name[name] for name in names]:
            self._reach(operator, host)
            if phase == "stopping":
                self._way(operator, host, operator.plan)
            host.record = change.at(phase)
            if phase == "started":
                host.disarm()
            yield

    def _reach(self, operator: Operator, host: Host) -> None:
        if self.without != "lock" and host.name not in operator.sessions:
            raise Refusal("the lock is lost")

    # hosts

    def reboot(self, host: Host) -> None:
        """Power off, and on again at once: locks are gone, enabled units start the timer and what is in place."""
        self.lose(host)
        host.timer = self.now + BOUND if host.way is not None and self.without != "boot" else None
        host.running = ""
        host.start()

    def _head(self, host: Host) -> Host:
        return self.hosts[0]

    # what must hold

    def check(self) -> None:
        """What must hold after every step."""
        for host in self.hosts:
            if host.lock is not None:
                require(host.holder in self.operators, f"{host.name}: a lock outlives its holder")
        holders = {host.holder.name for host in self.hosts if host.holder is not None and host.holder.touched}
        require(len(holders) <= 1, f"two changes at once: {holders}")
        carried = {host.running for host in self.hosts if host.running}
        if len(carried) > 1:
            require(not self.serving, "two plans serve")
        if not self.serving:
            self._bound()

    def _bound(self) -> None:
        """Somebody is bound to bring the group back: an operator, timers, the guards, or it is said to a person."""
        if any(host.holder is not None for host in self.hosts) or self.operators:
            return
        if all(host.running == self.hosts[0].installed for host in self.hosts):
            return
        waiting = [host for host in self.hosts if host.timer is not None]
        down = [host for host in self.hosts if not host.running]
        told = changes.unfinished({host.name: host.found() for host in self.hosts})
        require(all(host in waiting for host in down), "a rank is down and nobody is bound to bring it back")
        require(told is not None, "hosts differ and nothing is said")

    def _finished(self, operator: Operator) -> None:
        require(self.serving == operator.plan, f"{operator.name} ended well, and {self.serving or 'nothing'} serves")
        for host in self.hosts:
            require(host.installed == operator.plan, f"{operator.name} ended well, and {host.name} has other files")
            own = host.record is not None and host.record.id == operator.name
            require(not own, f"{operator.name} ended well, and {host.name} has its record")

    def calm(self) -> None:
        """No operator, no fault: the group comes back by itself, and then any deploy ends well."""
        self.left_to_itself()
        known = changes.unfinished({host.name: host.found() for host in self.hosts})
        require(bool(self.serving), f"left alone, the group does not come back: {self._state()}, {known}")
        operator = self.to_the_end(self.begin(self.random.choice(("p0", "p7"))))
        require(operator.result == "done", f"in calm a deploy is {operator.result}")
        require(not any(host.record for host in self.hosts), "in calm a record stays")


def episode(seed: int, without: str = "") -> World:
    """Some changes and faults, then calm."""
    dice = random.Random(seed)
    world = World(seed, dice.randrange(2, 5), without)
    for _ in range(dice.randrange(20, 120)):
        choice = dice.randrange(40)
        host = dice.choice(world.hosts)
        if len(world.operators) < 2 and choice < 8:
            world.begin(dice.choice(("p0", "p1", "p1", World.bad)))
        elif choice == 8 and world.operators:
            world.cut(dice.choice(world.operators))
        elif choice == 9:
            world.lose(host)
        elif choice == 10:
            world.reboot(host)
        elif choice == 11:
            world.tick(dice.choice((5.0, 60.0, 400.0)))
        elif world.operators:
            world.step(dice.choice(world.operators))
    world.calm()
    return world
