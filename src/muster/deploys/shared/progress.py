"""How far the hosts of one group are in one run: who has passed what, who has failed, what is still awaited."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from gevent.event import Event
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta

from muster.deploys.shared.transaction import Transaction
from muster.hosts.run_words import words
from muster.plan.plan_history import Seconds
from muster.plan.types import Step


@dataclass
class Progress:
    """What the hosts of one group share while they are stopped and brought up.

    Args:
        hosts: names, the head first.
        steps: of the bring-up.
        ready_timeout: seconds from the first start until the group must be ready.
        guarded_group: name of the group whose guards can be asked; empty for plain units.
    """

    hosts: tuple[str, ...]
    steps: tuple[Step, ...]
    ready_timeout: int
    guarded_group: str = ""
    transaction: Transaction | None = None
    """The change that this run makes; None where it changes nothing."""
    touched: bool = False
    """Whether this run has passed the gate behind which it acts on what runs."""
    settled: bool = False
    """Whether every host has verified what runs."""
    failed: Event = field(default_factory=Event)
    failure: str = ""
    stopping: float = 0.0
    started: float = 0.0
    ready_at: float = 0.0
    since: dict[str, dict[str, str]] = field(default_factory=dict)
    """Host -> unit -> the life that was started; another life is a death."""
    ended: dict[str, list[str]] = field(default_factory=dict)
    """Host -> lives of its guard that have ended during the bring-up."""
    asking: dict[int, set[str]] = field(default_factory=dict)
    """Bring-up step -> hosts that have begun to ask its checks."""
    passed: dict[int, set[str]] = field(default_factory=dict)
    """Bring-up step -> hosts whose checks have passed."""
    _ups: dict[int, Event] = field(default_factory=dict)
    _notes: dict[str, list[tuple[str, OperationMeta]]] = field(default_factory=dict)

    def note(self, host: Host, name: str, operation: OperationMeta) -> None:
        """Remember an operation that every host must pass before the next gate opens."""
        self._notes.setdefault(host.name, []).append((name, operation))

    def noted(self, host: Host) -> int:
        """Return how many operations a host has noted."""
        return len(self._notes.get(host.name, []))

    def short_of(self, count: int) -> list[str]:
        """Return the hosts that have not passed the first `count` noted operations, and where each is."""
        missing = []
        for name in self.hosts:
            for operation, meta in self._notes.get(name, [])[:count]:
                if not meta.is_complete():
                    missing.append(f"{name} has not come to '{operation}'")
                    break
                if not meta.did_succeed():
                    missing.append(f"{name} failed at '{operation}'")
                    break
        return missing

    def fence(self, host: str) -> dict[str, str] | None:
        """Return what a host must find before it does a step of the change."""
        return self.transaction.fence(host) if self.transaction is not None else None

    def up(self, number: int) -> Event:
        """Return the event of a bring-up step: set once all its checks have passed."""
        return self._ups.setdefault(number, Event())

    def fail(self, reason: str) -> None:
        """Tell every host of the group that bring-up has failed; the first reason is kept."""
        if not self.failed.is_set():
            self.failure = reason
            self.failed.set()
            words.fail(reason)

    def begin(self) -> None:
        """Start the clock of the bring-up, once."""
        self.started = self.started or time.monotonic()

    def stop_begins(self) -> None:
        """Note when the first rank is told to stop."""
        self.stopping = self.stopping or time.monotonic()

    def is_ready(self) -> None:
        """Note when the last step of the bring-up was up."""
        self.ready_at = self.ready_at or time.monotonic()

    @property
    def seconds(self) -> Seconds:
        """How long this run's change took, as far as it has come."""
        start = self.ready_at - self.started if self.ready_at else None
        return Seconds(self.started - self.stopping if self.stopping and self.started else None, start)

    @property
    def passed_seconds(self) -> float:
        """Seconds since the bring-up began."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds until the group must be ready; negative once it is late."""
        return self.ready_timeout - self.passed_seconds
