"""Edge drain: a group is out of the edge while it is changed, and nothing that ends the run leaves it there.

A session to each edge holds the group's servers out. Its end, whatever ended it, has them back. A group that answers at
other addresses then is followed there before it is back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.lock import RLock
from pydantic import ValidationError
from pyinfra import logger
from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.edge_servers import Servers, move
from muster.deploys.shared.progress import Progress
from muster.hosts import operations
from muster.hosts.all_hosts import each
from muster.hosts.answer_models import DrainLine
from muster.hosts.open_session import SILENCE, OpenSession, can_open
from muster.hosts.pyinfra_types import current_host, stage
from muster.hosts.run_words import words
from muster.hosts.say import fail
from muster.hosts.ssh_session import Broken

_EVERY = 0.3
_UP_SECONDS = 60.0
"""Seconds in which every edge must see a group that serves: two checks, and an edge that is busy."""


@dataclass
class EdgeDrain:
    """One group at all edges of a run.

    Args:
        group: its name.
        model: that it serves.
        servers: of it, and where they are to be once it is back.
        edges: name -> host, of the edges that were reached.
        seconds: that requests in flight get before they are cut.
        moves: edges that have its servers elsewhere until then.
        stays: whether it is not taken out: nobody else serves its model, or nothing of it is stopped.
    """

    group: str
    model: str
    servers: Servers
    edges: Mapping[str, Host]
    seconds: int
    moves: frozenset[str] = frozenset()
    stays: bool = False
    _sessions: dict[str, OpenSession] = field(default_factory=dict)
    _done: dict[str, str] = field(default_factory=dict)
    _lock: Any = field(default_factory=RLock)

    def take_out(self, state: State) -> str:
        """Have clients go to other groups, and wait for what is in flight; whichever host asks first does it for all.

        Returns:
            Why the group must stay: no other group of its model is up at an edge. Empty where it is out.
        """
        return self._once("out", lambda: self._take_out(state))

    def bring_back(self, state: State) -> str:
        """Have the group back where it answers now, and wait until every edge sends it requests; as `take_out`.

        Returns:
            The edges that do not; empty where all do.
        """
        return self._once("back", lambda: self._bring_back(state))

    def end(self) -> None:
        """Let go of the group, whatever has become of it."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def _once(self, step: str, work: Any) -> str:
        with self._lock:
            if step not in self._done:
                self._done[step] = work()
            return self._done[step]

    def _open(self, state: State, edges: Iterable[Host], *, stays: bool) -> dict[str, DrainLine | str]:
        """Open a session to edges, which holds the group out or looks at it; return each's first line, or why not."""
        request = {"do": "hold", "servers": list(self.servers), "silence": SILENCE, "stays": stays}

        def one(host: Host) -> DrainLine | str:
            try:
                session = self._sessions[host.name] = OpenSession(state, host, "drain_servers", request)
                return DrainLine.model_validate(session.next())
            except (Broken, ValidationError) as error:
                self._sessions.pop(host.name, None)
                return str(error)

        return each([host for host in edges if can_open(host)], one)

    def _take_out(self, state: State) -> str:
        answers = self._open(state, self.edges.values(), stays=False)
        for name, answer in answers.items():
            if isinstance(answer, str):
                logger.warning(f"{name}: {self.group} is not taken out here, its /ready will: {answer}")
        alone = [name for name, answer in answers.items() if isinstance(answer, DrainLine) and answer.alone]
        if alone:
            self.end()
            return f"{', '.join(alone)}: no other group of {self.model} is up, and {self.group} serves on"
        deadline = time.monotonic() + self.seconds
        while (left := self._in_flight()) and time.monotonic() < deadline:
            gevent.sleep(_EVERY)
        if left:
            logger.warning(f"{self.group}: {left} requests were still in flight after {self.seconds} s, and are cut")
            self._tell("cut")
        return ""

    def _in_flight(self) -> int:
        return sum(answer.in_flight for answer in self._tell("count").values())

    def _bring_back(self, state: State) -> str:
        moving = {name: host for name, host in self.edges.items() if name in self.moves}
        answers = each(moving.values(), lambda host: move(state, host, self.servers))
        problems = [f"{name} does not follow {self.group}: {why}" for name, why in answers.items() if why]
        if problems:
            self.end()
            return "; ".join(problems)
        self._open(state, [host for name, host in moving.items() if name not in self._sessions], stays=True)
        self._tell("back")
        deadline = time.monotonic() + _UP_SECONDS
        while down := {name: answer.down for name, answer in self._tell("up").items() if answer.down}:
            if time.monotonic() > deadline:
                break
            gevent.sleep(_EVERY)
        self.end()
        return "; ".join(f"{name} does not see {', '.join(servers)} as ready" for name, servers in down.items())

    def _tell(self, do: str) -> dict[str, DrainLine]:
        """Say something to every edge; one that has gone away decides by /ready alone."""

        def one(host: Host) -> DrainLine | None:
            session = self._sessions.get(host.name)
            try:
                return DrainLine.model_validate(session.ask({"do": do})) if session is not None else None
            except (Broken, ValidationError) as error:
                if self._sessions.pop(host.name, None) is not None:
                    logger.warning(f"{host.name}: {self.group} is held out of this edge no longer: {error}")
                return None

        answers = each([self.edges[name] for name in self._sessions], one)
        return {name: answer for name, answer in answers.items() if answer is not None}


@stage("Edge")
def out_of_the_edge(drain: EdgeDrain, progress: Progress) -> None:
    """Take a group out of the edge before its ranks are stopped; one that stays in is left there."""
    if drain.stays:
        return
    question = FunctionCommand(_is_out, [drain], {})
    progress.note(current_host(), "the edge", operations.holds(question, name="clients have gone to other groups"))


@stage("Edge")
def back_in_the_edge(drain: EdgeDrain, progress: Progress) -> None:
    """Have a group that serves back in the edge."""
    question = FunctionCommand(_is_back, [drain], {})
    progress.note(current_host(), "the edge", operations.holds(question, name="the edge sends requests again"))


def _is_out(state: State, host: Host, drain: EdgeDrain) -> bool:
    return _said(host, drain.take_out(state))


def _is_back(state: State, host: Host, drain: EdgeDrain) -> bool:
    return _said(host, drain.bring_back(state))


def _said(host: Host, problem: str) -> bool:
    if problem:
        fail(host, problem)
        if not words.failures:
            words.fail(problem)
    return not problem
