"""A group of hosts around the pure core: systemd, processes, clocks and a bad network, all simulated.

Nothing here knows how the core decides. It carries messages (late, twice, out of order or not at all), kills and
restarts guards as systemd does (children gone first, then a fresh instance), and checks what must never happen.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from muster.guard import head_core, member_core, restart_policy
from muster.guard.group_settings import Group, Member, Settings
from muster.guard.messages import Failure, Report, View

TICK = 0.5
RESTART = 3.0
MEASURES = 0.05
"""How likely it is at each tick that a host without a child finds other times of its loaders."""
WATCHDOG = 30.0
LATEST = 30.0
"""The longest delay of a message on a bad network."""
STALE = 60.0
"""Beyond the longest delay: a report this old has been overtaken."""
LOAD = 10.0
"""From all children alive to every rank answering."""
LOADERS = ("fast", "other")
MEASURED = ("auto=90 fast=20 other=40", "auto=90 fast=50 other=40", "auto=25 fast=20 other=40", "auto=90 fast=20", "")
"""What a host may have measured: each favours another loader, or none."""


class Violation(AssertionError):
    """An invariant does not hold."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise Violation(message)


def _life(instance: str) -> int:
    return int(instance.rpartition("-")[2] or 0)


@dataclass
class SimulatedGuard:
    """One running guard process."""

    state: member_core.MemberState
    head: head_core.HeadState | None
    digest: str
    paused_at: float | None = None
    resumed_at: float = float("-inf")
    mailbox: list[Any] = field(default_factory=list)
    contact: dict[str, float] = field(default_factory=dict)
    """When anything last arrived, by sender."""


@dataclass
class Host:
    name: str
    digest: str
    guard: SimulatedGuard | None = None
    children: list[str] = field(default_factory=list)
    """Generations of the processes alive in the unit's cgroup."""
    broken: bool = False
    """The child proper is dead; what is left of it in the cgroup are orphans."""
    record: restart_policy.RestartRecord = field(default_factory=restart_policy.RestartRecord)
    blocked: str = ""
    blocked_since: float = 0.0
    loads: str = MEASURED[0]
    boot: int = 0
    life: int = 0
    """Counts guards and boots, so that what was planned for an earlier life comes to nothing."""


class World:
    """`core` holds the modules under test, so that a broken copy can be put in their place."""

    def __init__(self, size: int, seed: int, settings: Settings | None = None, core: Any = None) -> None:
        self.head_core = core.head_core if core else head_core
        self.member_core = core.member_core if core else member_core
        self.restart_policy = core.restart_policy if core else restart_policy
        self.random = random.Random(seed)
        self.settings = settings or Settings()
        self.names = tuple(f"h{index}" for index in range(size))
        self.now = 1000.0
        self.wall = 0.0
        """What the wall clocks of the hosts say; no guard ever sees it."""
        self.steps = 0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = 0
        self.cut: set[tuple[str, str]] = set()
        self.loss = self.duplication = self.stragglers = 0.0
        self.delay = 0.05
        self.hosts = {name: Host(name, "plan-1") for name in self.names}
        # What the invariants remember by themselves.
        self.joined: dict[tuple[str, str], str] = {}
        self.aborts: list[float] = []
        self.streak = 0
        self.runs: list[float] = []
        self.run_open = False
        self.started: set[tuple[str, str]] = set()
        self.loaders: dict[str, str] = {}
        """Generation -> the loader of its first start."""
        self.loading = ""
        """The loader that the open run was told to take, until it was ready."""
        self.unfit: set[str] = set()
        self.told_to_run: set[tuple[str, str]] = set()
        self.generations = 0
        self.held = ""
        self.exits: list[str] = []
        for name in self.names:
            self.at(self.random.uniform(0, 2), lambda name=name: self.boot(name))

    # Time

    def at(self, delay: float, action: Callable[[], None]) -> None:
        self.serial += 1
        heapq.heappush(self.queue, (self.now + delay, self.serial, action))

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self.queue and self.queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self.queue)
            action()
        self.now = until

    # Hosts and systemd

    def group(self, digest: str) -> Group:
        members = tuple(Member(name, "", rank, (rank,)) for rank, name in enumerate(self.names))
        return Group("g", digest, "1", self.names[0], members)

    def boot(self, name: str) -> None:
        host = self.hosts[name]
        host.life += 1
        life = host.life
        instance = f"{name}-{host.life}"
        group = self.group(host.digest)
        state = self.member_core.MemberState(group, self.settings, name, instance)
        top = None
        if name == self.names[0]:
            self.generations += 1
            ended = Failure(name, "its guard died")
            if host.record.boot != str(host.boot):
                self.aborts.clear()
                self.runs.clear()
                self.streak = 0
                self.unfit.clear()
            elif self.run_open:
                self._count_abort()
            self.run_open, self.loading = False, ""
            host.record = self.restart_policy.restore(host.record, str(host.boot), ended, self.settings, self.now)
            top = self.head_core.start(group, self.settings, f"g{self.generations}", host.record, self.now)
            top = replace(top, loaders=LOADERS)
        host.guard = SimulatedGuard(state, top, host.digest)
        self._member(name, self.member_core.Checked(host.blocked, host.loads))
        self._tick(name, life)

    def _tick(self, name: str, life: int) -> None:
        host = self.hosts[name]
        guard = host.guard
        if host.life != life or guard is None:
            return
        self.at(TICK, lambda: self._tick(name, life))
        if guard.paused_at is not None:
            if self.now - guard.paused_at > WATCHDOG:
                self.kill_guard(name)
            return
        self._drain_mailbox(name)
        if host.guard is guard and guard.digest != host.digest:
            self._member(name, self.member_core.Outdated())
            if host.guard is guard and guard.head is not None:
                self._head(name, self.head_core.Outdated())
        if host.guard is guard and not host.children and self.random.random() < MEASURES:
            host.loads = self.random.choice(MEASURED)
            self._member(name, self.member_core.Checked(host.blocked, host.loads))
        if host.guard is guard:
            self._member(name, self.member_core.Tick())
        if host.guard is guard and guard.head is not None:
            self._head(name, self.head_core.Tick())
        if host.guard is guard:
            self._hear(host, guard)

    def _hear(self, host: Host, guard: SimulatedGuard) -> None:
        """No guard keeps a child, or a run, for a peer that is long silent; one that was paused gets a moment first."""
        moment = member_core.LAST_REPORT_TIMEOUT + 3 * TICK
        if self.now - guard.resumed_at <= moment:
            return
        late = self.now - self.settings.silence_timeout - moment
        if guard.head is None:
            heard = guard.contact.get(self.names[0], late)
            require(not host.children or heard >= late, f"{host.name} keeps its child without a word of the head")
        elif guard.head.phase == "run":
            for other in self.names[1:]:
                heard = guard.contact.get(other, late)
                require(heard >= late, f"the head keeps the run without a word of {other}")

    def _drain_mailbox(self, name: str) -> None:
        guard = self.hosts[name].guard
        while guard is not None and guard.mailbox and self.hosts[name].guard is guard:
            self._deliver(name, guard.mailbox.pop(0))

    def _end_guard(self, name: str, fence: float) -> None:
        """The guard is gone; systemd empties the cgroup within `fence` seconds and starts a fresh one after that."""
        host = self.hosts[name]
        host.guard = None
        host.life += 1
        life = host.life

        def empty() -> None:
            if host.life == life:
                host.children.clear()
                self._look()
                self.at(RESTART, lambda: self.boot(name) if host.life == life else None)

        self.at(fence, empty)

    # The core

    def _member(self, name: str, event: Any) -> None:
        host = self.hosts[name]
        guard = host.guard
        assert guard is not None
        self.steps += 1
        guard.state, actions = self.member_core.step(guard.state, event, self.now)
        core = self.member_core
        for action in actions:
            if host.guard is not guard:
                return
            if isinstance(action, core.Send):
                report = action.report
                if report.generation and report.child == "none":
                    self.joined[report.generation, name] = report.digest
                if guard.head is not None:
                    self._head(name, report)
                else:
                    self._send(name, self.names[0], report)
            elif isinstance(action, core.Start):
                self._start(name, action.generation, action.loader)
            elif isinstance(action, core.Drain):
                self.at(self.random.uniform(0, 40), lambda: self.end_child(name))
            else:
                self._exit(name, action.reason)

    def _head(self, name: str, event: Any) -> None:
        host = self.hosts[name]
        guard = host.guard
        assert guard is not None
        assert guard.head is not None
        self.steps += 1
        before = guard.head
        guard.head, actions = self.head_core.step(guard.head, event, self.now)
        self._check_head(before, guard.head)
        unfit = set(guard.head.record.unfit)
        require(unfit == self.unfit, f"the head takes {unfit} for unfit, where starts failed with {self.unfit}")
        core = self.head_core
        for action in actions:
            if host.guard is not guard:
                return
            if isinstance(action, core.Reply):
                self._answer(name, action.host, action.view)
            elif isinstance(action, core.PushViews):
                for other, view in core.pushed_views(guard.head).items():
                    if host.guard is guard:
                        self._answer(name, other, view)
            elif isinstance(action, core.SaveRecord):
                host.record = guard.head.record
            elif isinstance(action, core.SaveStart):
                require(action.seconds >= 0, f"a start took {action.seconds} s")
            else:
                self._exit(name, action.reason)

    def _answer(self, name: str, other: str, view: View) -> None:
        if view.phase == "run":
            require(not self.held, f"the head says run to {other} while the group is {self.held}")
            self.told_to_run.add((view.generation, other))
        if other == name:
            self._member(name, view)
        else:
            self._send(name, other, view)

    def _exit(self, name: str, reason: str) -> None:
        self.exits.append(f"{self.now:.1f} {name}: {reason}")
        self._end_guard(name, self.random.uniform(0, 2))

    def _start(self, name: str, generation: str, loader: str) -> None:
        first = self.loaders.setdefault(generation, loader)
        require(loader == first, f"{name} starts {generation} with loader {loader!r}, another host with {first!r}")
        require(loader not in self.unfit, f"{name} starts {generation} with {loader}, with which a start failed")
        host = self.hosts[name]
        digests = {self.joined.get((generation, other)) for other in self.names}
        require(None not in digests, f"{name} starts {generation} before all joined")
        require(len(digests) == 1, f"{name} starts {generation} with digests {digests}")
        require((generation, name) not in self.started, f"{name} starts {generation} twice")
        self.started.add((generation, name))
        # A `run` sent before an operator's stop may still be in transit; the next answer ends it.
        require((generation, name) in self.told_to_run, f"{name} starts {generation} and was never told to")
        host.children.append(generation)
        host.broken = False
        self._look()

    def _check_head(self, before: head_core.HeadState, after: head_core.HeadState) -> None:
        if after.ready_at is not None:
            self.loading = ""
        for host in self.names:
            lives = [_life(state.peers[host].instance) for state in (before, after)]
            require(lives[0] <= lives[1], f"the head went back to an older instance of {host}")
        if after.phase == before.phase:
            return
        if after.phase == "run":
            self.runs.append(self.now)
            hour = [at for at in self.runs if self.now - at < self.settings.budget_window]
            require(len(hour) <= self.settings.budget + 1, f"{len(hour)} starts in an hour")
            if self.aborts and self.streak > 1:
                pause = min(self.settings.backoff_base * 2 ** (self.streak - 2), self.settings.backoff_max)
                require(self.now - self.aborts[-1] >= pause - 1e-6, "started within the backoff")
            alive = [other.name for other in self.hosts.values() if other.children]
            require(not alive, f"run was said while {alive} had children")
            for other in self.hosts.values():
                long = bool(other.blocked) and self.now - other.blocked_since > STALE
                require(not long, f"run was said while {other.name} is blocked")
            self.run_open, self.loading = True, after.loader
        if after.phase == "abort":
            # Deliberate ends go through `drain`: a run that ends without it was aborted.
            if before.phase == "run":
                self._count_abort()
            self.run_open, self.loading = False, ""

    def _count_abort(self) -> None:
        self.aborts = [at for at in self.aborts if self.now - at < self.settings.budget_window] + [self.now]
        self.streak += 1
        if self.loading:
            self.unfit.add(self.loading)
        if len(self.aborts) > self.settings.budget:
            self.held = "failed"

    def _look(self) -> None:
        alive = {generation for host in self.hosts.values() for generation in host.children}
        require(len(alive) <= 1, f"children of {sorted(alive)} are alive at once")
        if len(alive) == 1 and all(host.children for host in self.hosts.values()):
            (generation,) = alive
            self.at(LOAD, lambda: self._answering(generation))

    def _answering(self, generation: str) -> None:
        guard = self.hosts[self.names[0]].guard
        whole = all(host.children == [generation] for host in self.hosts.values())
        if whole and guard is not None and guard.head is not None and guard.head.generation == generation:
            self._to_guard(self.names[0], lambda: self._head(self.names[0], self.head_core.Ready()))

    # The network

    def _send(self, source: str, target: str, message: Report | View) -> None:
        copies = 1 + (self.random.random() < self.duplication)
        for _ in range(copies):
            if (source, target) in self.cut or self.random.random() < self.loss:
                continue
            straggles = self.random.random() < self.stragglers
            delay = self.random.uniform(0.001, LATEST if straggles else self.delay)
            self.at(delay, lambda: self._arrive(target, message))

    def _arrive(self, target: str, message: Report | View) -> None:
        guard = self.hosts[target].guard
        if guard is None:
            return
        if guard.paused_at is not None:
            guard.mailbox.append(message)
        else:
            self._deliver(target, message)

    def _deliver(self, target: str, message: Any) -> None:
        guard = self.hosts[target].guard
        if guard is None:
            return
        if callable(message):
            message()
        elif isinstance(message, Report):
            if guard.head is not None:
                guard.contact[message.host] = self.now
                self._head(target, message)
        else:
            guard.contact[self.names[0]] = self.now
            self._member(target, message)

    def _to_guard(self, name: str, action: Callable[[], None]) -> None:
        """Something a guard notices: at once, or when it runs again; never before what it had to notice earlier."""
        guard = self.hosts[name].guard
        if guard is None:
            return
        if guard.paused_at is None and not guard.mailbox:
            action()
        else:
            guard.mailbox.append(action)

    # Faults

    def kill_guard(self, name: str) -> None:
        if self.hosts[name].guard is not None:
            self._end_guard(name, self.random.uniform(0, 10))

    def pause_guard(self, name: str) -> None:
        guard = self.hosts[name].guard
        if guard is not None and guard.paused_at is None:
            guard.paused_at = self.now

    def resume_guard(self, name: str) -> None:
        guard = self.hosts[name].guard
        if guard is not None and guard.paused_at is not None:
            guard.paused_at, guard.resumed_at = None, self.now
            if self.random.random() < 0.5:
                self._drain_mailbox(name)

    def end_child(self, name: str) -> None:
        host = self.hosts[name]
        if host.children and host.guard is not None:
            host.broken = True
            failure = Failure(name, "vllm ended", process="vllm")
            # Orphans of the child stay in the cgroup until the guard's unit is emptied.
            self._to_guard(name, lambda: self._member(name, self.member_core.ChildEnded(failure)))

    def reboot(self, name: str, seconds: float) -> None:
        host = self.hosts[name]
        host.guard = None
        host.children.clear()
        host.life += 1
        host.boot += 1
        life = host.life
        self.at(seconds, lambda: self.boot(name) if host.life == life else None)

    def leave(self, name: str) -> None:
        self._to_guard(name, lambda: self._member(name, self.member_core.Leave()))

    def stall(self) -> None:
        self._to_guard(self.names[0], lambda: self._maybe_head(self.head_core.Stalled("no token for 120 s")))

    def command(self, name: str) -> None:
        """An operator at the head's control socket; without a guard nothing happens."""

        def speak() -> None:
            guard = self.hosts[self.names[0]].guard
            if guard is None or guard.head is None or guard.head.phase == "abort":
                return
            if name == "stop":
                self.held = "stopped"
            else:
                self.held = ""
                self.aborts.clear()
                self.runs.clear()
                self.streak = 0
                self.unfit.clear()
            self._maybe_head(self.head_core.Command(name))

        self._to_guard(self.names[0], speak)

    def _maybe_head(self, event: Any) -> None:
        guard = self.hosts[self.names[0]].guard
        if guard is not None and guard.head is not None:
            self._head(self.names[0], event)

    def block(self, name: str, reason: str) -> None:
        host = self.hosts[name]
        if reason and not host.blocked:
            host.blocked_since = self.now
        host.blocked = reason
        self._to_guard(name, lambda: self._member(name, self.member_core.Checked(reason)))

    # Endings

    def heal(self) -> None:
        """Every fault ends: nothing is cut, lost, late, paused, blocked or held, and every host has one plan."""
        digest = self.random.choice(("plan-1", "plan-2"))
        self.cut.clear()
        self.loss = self.duplication = self.stragglers = 0.0
        self.delay = 0.05
        for name, host in self.hosts.items():
            host.digest = digest
            self.resume_guard(name)
            self.block(name, "")

    def running(self) -> bool:
        """Every host has one child, all of one generation, and the head knows them ready."""
        guard = self.hosts[self.names[0]].guard
        if guard is None or guard.head is None or guard.head.ready_at is None or guard.head.phase != "run":
            return False
        return all(h.children == [guard.head.generation] and not h.broken for h in self.hosts.values())

    def settle(self, bound: float) -> None:
        """Require the group to run within `bound` seconds from now."""
        until = self.now + bound
        while not self.running():
            states = {name: (host.children, host.guard and host.guard.state.child) for name, host in self.hosts.items()}
            top = self.hosts[self.names[0]].guard
            why = self.head_core.blockers(top.head, self.now) if top and top.head else "no head"
            require(self.now < until, f"not running {bound:g} s after the faults ended: {states}; {why}")
            self.advance(1.0)
