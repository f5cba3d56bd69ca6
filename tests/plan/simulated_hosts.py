"""Hosts, runs on them and the clock, as both simulations of changes have them; what must never happen is said by each.

A host keeps files, a lock, a record and a timer as the programs of `on_host` do; an operator does one small step at a
time, and may be cut between any two of them.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from muster.errors import Refusal
from muster.on_host import return_change
from muster.plan import change as changes
from muster.plan.change import Change, Found

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
        self.has_whole(way.plan)
        self.staged = "" if self.staged == way.plan else self.staged
        self.record = replace(self.record, phase="committed", exchanging="")
        return True

    def has_whole(self, plan: str) -> None:
        """End an exchange of files: those of one plan are there."""
        self.installed, self.mixed = plan, ""

    def exchange(self, plan: str, fenced: Callable[[], None], *, recorded: bool = True) -> Iterator[None]:
        """What `place_files.commit` and `restore_plan` do: record it, then file by file.

        Args:
            plan: whose files are put in place.
            fenced: refuses where the run has lost the host's lock; asked before each step.
            recorded: whether the host's record shows it.
        """
        fenced()
        if recorded and self.record is not None:
            self.record = replace(self.record, exchanging="yes")
        yield
        fenced()
        self.mixed, self.staged = plan, ""
        yield
        fenced()
        self.has_whole(plan)
        yield

    def settle(self, *, forward: bool, now: float) -> None:
        """What `return_change.settle` does with an exchange that was cut: end it, or forget that it was to begin."""
        assert self.record is not None
        if not forward:
            self.record = self.record.at("stopping")
        elif self.way is not None:
            self.put(self.way)
        self.timer = now + BOUND

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
            head_carries=head.running if record.returned and head is not None else "",
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


@dataclass(eq=False)
class Operator:
    """One run, step by step."""

    name: str
    plan: str
    steps: Iterator[None] = field(default_factory=lambda: iter(()))
    result: str = ""
    """`done`, `refused`, `failed`; empty while it goes on, or when it was cut."""
    touched: bool = False
    sessions: set[str] = field(default_factory=set)


AnyHost = TypeVar("AnyHost", bound=Host)
AnyOperator = TypeVar("AnyOperator", bound=Operator)


class Simulation(ABC, Generic[AnyHost, AnyOperator]):
    """What happens to hosts and operators, one small step at a time.

    Args:
        random: what happens.
        without: a rule that is left out, to see that it is missed.
    """

    def __init__(self, random: random.Random, without: str) -> None:
        self.random, self.without = random, without
        self.now, self.steps, self.serial = 0.0, 0, 0
        self.operators: list[AnyOperator] = []
        self.calmed = False

    @property
    @abstractmethod
    def all(self) -> Sequence[AnyHost]:
        """Every host."""

    @abstractmethod
    def check(self) -> None:
        """What must hold after every step."""

    @abstractmethod
    def _finished(self, operator: AnyOperator) -> None:
        """What must hold when a run that has touched hosts ends well."""

    @abstractmethod
    def _head(self, host: AnyHost) -> AnyHost | None:
        """The head of the plan that is on a host's way."""

    def step(self, operator: AnyOperator) -> None:
        """Do one small step of a run."""
        self.steps += 1
        self.now += self.random.choice((0.05, 0.2, 1.0))
        before = None if operator.touched else self._state()
        try:
            next(operator.steps)
        except StopIteration:
            operator.result = "done"
        except Refusal:
            operator.result = "failed" if operator.touched else "refused"
        if operator.result:
            self.cut(operator)
        if before is not None and operator.result == "refused":
            require(self._state() == before, f"{operator.name} was refused and has touched something")
        if operator.result == "done" and operator.touched:
            # One that changes nothing has no lock, and says what was true when it looked.
            self._finished(operator)
        self.check()

    def to_the_end(self, operator: AnyOperator) -> AnyOperator:
        """Do every step of a run that is left, and return it."""
        while operator in self.operators:
            self.step(operator)
        return operator

    def cut(self, operator: AnyOperator) -> None:
        """Kill a run: its sessions end, and its locks with them."""
        for host in self.all:
            if host.holder is operator:
                self.lose(host)
        self.operators.remove(operator)

    def lose(self, host: Host) -> None:
        """End the session to one host alone."""
        if host.holder is not None:
            host.holder.sessions.discard(host.name)
        host.lock, host.holder = None, None

    def tick(self, seconds: float) -> None:
        """Let time pass for hosts' timers."""
        self.now += seconds
        for host in self.all:
            if host.timer is not None and host.timer <= self.now:
                self.steps += 1
                host.left_alone(self.now, self._head(host))
        self.check()

    def left_to_itself(self) -> None:
        """No operator and no fault from here on: cut every run, and let the timers act."""
        self.calmed = True
        for operator in list(self.operators):
            self.cut(operator)
        for _ in range(40):
            self.tick(AGAIN)

    def _take(
        self, operator: AnyOperator, hosts: Sequence[AnyHost], change: Change, probed: Mapping[str, Found]
    ) -> Generator[None, None, dict[str, Found]]:
        """Take the locks of a change, host by host, and return what each shows under its lock.

        Raises:
            Refusal: somebody has a lock, or has changed what was probed.
        """
        now = {}
        for host in sorted(hosts, key=lambda host: host.name):
            if host.lock is not None and self.without != "lock":
                raise changes.busy(change.group, host.name, host.lock)
            host.lock, host.holder = change, operator
            operator.sessions.add(host.name)
            now[host.name] = Found(None, host.record, host.installed)
            yield
        if self.without != "compare" and changes.changed_since(probed, now):
            raise Refusal("another change has come in between")
        return now

    def _fenced(self, operator: AnyOperator, host: AnyHost) -> None:
        """The host refuses a step of a change whose lock it does not hold."""
        if self.without not in ("lock", "fence") and host.holder is not operator:
            raise Refusal("this run has lost the lock")

    def _state(self) -> list[tuple[str, str, str]]:
        return [(host.installed, host.running, host.record.id if host.record else "") for host in self.all]
