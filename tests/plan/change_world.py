"""Hosts, operators, cuts and reboots around the pure decisions of a change: what must never happen is checked here.

Nothing here knows how those decide. A host keeps files, a lock, a record and a timer as the programs of `on_host` do;
an operator does one small step at a time, and may be cut between any two of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from muster.errors import Refusal
from muster.on_host import return_change
from muster.plan import change as changes
from muster.plan.change import Change, Found, Phase

BOUND = 300.0
"""Seconds after which a host's timer acts for the first time."""
AGAIN = 30.0


class Violation(AssertionError):
    """An invariant does not hold."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise Violation(message)


@dataclass(frozen=True)
class Way:
    """What a host has on disk to end a change by itself: the plan, whether from its kept copy, by whom it was begun."""

    of: str
    plan: str
    is_head: bool
    kept: bool = False


@dataclass
class Host:
    name: str
    is_head: bool
    installed: str = "p0"
    staged: str = ""
    mixed: str = ""
    """The plan whose files are being put in place; "" while those of one plan are there whole."""
    running: str = "p0"
    lock: Change | None = None
    holder: Operator | None = None
    record: Change | None = None
    timer: float | None = None
    """When it acts next; None where there is none."""
    way: Way | None = None
    """On disk, and with it the unit that starts the timer after a reboot."""
    up: bool = True

    def found(self) -> Found:
        return Found(self.lock, self.record, self.installed, self.lock is not None)

    def start(self) -> None:
        """Start what is in place, in the place of what runs; a guard starts nothing from files of two plans."""
        self.running = "" if self.mixed else self.installed

    def put(self, way: Way) -> bool:
        """Put the files of a change in place, from wherever it was cut; return whether they were there."""
        assert self.record is not None
        if not way.kept and self.staged != way.plan and self.mixed != way.plan and self.installed != way.plan:
            return False
        self.installed, self.mixed = way.plan, ""
        self.staged = "" if self.staged == way.plan else self.staged
        self.record = replace(self.record, phase="committed", exchanging="")
        return True

    def disarm(self) -> None:
        self.timer, self.way = None, None

    def forget(self) -> None:
        """End a change."""
        self.record = None
        self.disarm()

    def left_alone(self, now: float, head: Host | None) -> None:
        """What `return_change` does when the timer acts; `head` is that of the plan on this host's way."""
        record, way = self.record, self.way
        self.timer = now + AGAIN
        if self.lock is not None:
            return
        if record is None or way is None or record.id != way.of:
            self.disarm()
            return
        did = return_change.left_alone(
            record.phase,
            is_head=way.is_head,
            exchanging=bool(record.exchanging),
            head_carries=head.running if record.returned and head is not None and head.up else "",
            after=record.after,
        )
        if did == "follow" and record.returned:
            return
        if did == "forward":
            self.running = ""
            if not self.put(way):
                require(not record.exchanging, f"{self.name}: the files of its own exchange are gone")
                did = "start"
        if did != "nothing":
            self.start()
            self.record = replace(self.record or record, returned="now")
        if did != "follow":
            self.timer = None


@dataclass
class Operator:
    """One run of a deploy, step by step."""

    name: str
    plan: str
    steps: Iterator[None] | None = None
    result: str = ""
    """`done`, `refused`, `failed`; empty while it goes on, or when it was cut."""
    touched: bool = False
    sessions: set[str] = field(default_factory=set)


class World:
    """`without` names a rule that is left out, to see that it is missed."""

    bad = "p2"
    """A plan that does not start."""

    def __init__(self, seed: int, size: int, without: str = "") -> None:
        self.random = random.Random(seed)
        self.without = without
        self.hosts = [Host(f"h{number}", number == 0) for number in range(size)]
        self.now, self.steps, self.serial = 0.0, 0, 0
        self.operators: list[Operator] = []
        self.calmed = False
        self.verified = ["p0"]
        """Plans that every host keeps, the one that was verified last at the end."""

    @property
    def serving(self) -> str:
        """The plan that serves; "" for none. Guards run ranks only where every host carries one plan."""
        plans = {host.running if host.up else "" for host in self.hosts}
        return plans.pop() if len(plans) == 1 else ""

    # operators

    def begin(self, plan: str) -> Operator:
        self.serial += 1
        operator = Operator(f"o{self.serial}", plan)
        operator.steps = self._deploy(operator)
        self.operators.append(operator)
        return operator

    def step(self, operator: Operator) -> None:
        """Do one small step of a run."""
        self.steps += 1
        self.now += self.random.choice((0.05, 0.2, 1.0))
        before = self._state() if not operator.touched else None
        try:
            assert operator.steps is not None
            next(operator.steps)
        except StopIteration:
            operator.result = "done"
            if operator.touched:  # one that changes nothing has no lock, and says what was true when it looked
                self._finished(operator)
        except Refusal:
            operator.result = "failed" if operator.touched else "refused"
        if operator.result:
            self._end(operator)
        if before is not None and operator.result == "refused":
            require(self._state() == before, f"{operator.name} was refused and has touched something")
        self.check()

    def cut(self, operator: Operator) -> None:
        """Kill a run: its sessions end, and its locks with them."""
        self._end(operator)

    def lose(self, host: Host) -> None:
        """End the session to one host alone."""
        if host.holder is not None:
            host.holder.sessions.discard(host.name)
        host.lock, host.holder = None, None

    def _end(self, operator: Operator) -> None:
        for host in self.hosts:
            if host.holder is operator:
                self.lose(host)
        self.operators.remove(operator)

    def _state(self) -> list[tuple[str, str, bool, str]]:
        return [(host.installed, host.running, host.up, host.record.id if host.record else "") for host in self.hosts]

    def _way(self, operator: Operator, host: Host, plan: str, *, kept: bool = False) -> None:
        if self.without != "timer":
            host.way = Way(operator.name, plan, host.is_head, kept)
            host.timer = self.now + BOUND

    def _deploy(self, operator: Operator) -> Iterator[None]:
        """What `deploys.serve` does, with the decisions of `plan.change`."""
        probed = {host.name: host.found() for host in self.hosts}
        if not all(host.up for host in self.hosts):
            raise Refusal("a host is off")
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
            yield from self._take(operator, change, probed)
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
        """What `place_files.commit` and `restore_plan` do: record it, then file by file."""
        self._fenced(operator, host)
        if self.without != "exchanging" and host.record is not None:
            host.record = replace(host.record, exchanging="yes")
        yield
        self._fenced(operator, host)
        host.mixed, host.staged = plan, ""
        yield
        self._fenced(operator, host)
        host.installed, host.mixed = plan, ""
        yield

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
        for host in [host for host in self.hosts if host.name in (*settlement.forward, *settlement.back)]:
            self._reach(operator, host)
            assert host.record is not None
            if host.name in settlement.back:
                host.record = host.record.at("stopping")
            elif host.way is not None:
                host.put(host.way)
            host.timer = self.now + BOUND
            yield

    def _take(self, operator: Operator, change: Change, probed: dict[str, Found]) -> Iterator[None]:
        now = {}
        for host in sorted(self.hosts, key=lambda host: host.name):
            self._up(host)
            if host.lock is not None and self.without != "lock":
                raise changes.busy("g", host.name, host.lock)
            host.lock, host.holder = change, operator
            operator.sessions.add(host.name)
            now[host.name] = Found(None, host.record, host.installed)
            yield
        if self.without != "compare" and changes.changed_since(probed, now):
            raise Refusal("another change has come in between")
        yield from self._settle(operator, now)

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
        self._up(host)
        if self.without != "lock" and host.name not in operator.sessions:
            raise Refusal("the lock is lost")

    def _fenced(self, operator: Operator, host: Host) -> None:
        """The host refuses a step of a change whose lock it does not hold."""
        self._up(host)
        if self.without not in ("lock", "fence") and host.holder is not operator:
            raise Refusal("this run has lost the lock")

    def _up(self, host: Host) -> None:
        if not host.up:
            raise Refusal("a host is off")

    # hosts

    def reboot(self, host: Host) -> None:
        """Power off, and on again at once: locks are gone, enabled units start the timer and what is in place."""
        self.lose(host)
        host.timer = self.now + BOUND if host.way is not None and self.without != "boot" else None
        host.running = ""
        host.start()

    def tick(self, seconds: float) -> None:
        """Let time pass for hosts' timers."""
        self.now += seconds
        for host in self.hosts:
            if host.timer is not None and host.timer <= self.now and host.up:
                self.steps += 1
                host.left_alone(self.now, self.hosts[0])
        self.check()

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
        self.calmed = True
        for operator in list(self.operators):
            self.cut(operator)
        for _ in range(40):
            self.tick(AGAIN)
        known = changes.unfinished({host.name: host.found() for host in self.hosts})
        require(bool(self.serving), f"left alone, the group does not come back: {self._state()}, {known}")
        operator = self.begin(self.random.choice(("p0", "p7")))
        while operator in self.operators:
            self.step(operator)
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
