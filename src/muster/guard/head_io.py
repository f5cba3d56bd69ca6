"""The head's side of a guard: its decision core, the control port, the watch over the engine."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from . import head_core, restart_policy, status
from .control_port import Server
from .engine_watch import Engine
from .head_core import HeadEvent, HeadState
from .liveness import LivenessState
from .messages import Failure, Report, View
from .state_store import boot_id

if TYPE_CHECKING:
    from .loop import Agent


class Leader:
    """Exists on the head alone, beside the member that every host has."""

    def __init__(self, agent: Agent, key: bytes, api_key: str, previous: str) -> None:
        """`previous`: how systemd says that the guard before ended; empty when it did not say."""
        self._agent = agent
        self._api_key = api_key
        self._reply: View | None = None
        self.engine: Engine | None = None
        config = agent.config
        now = time.monotonic()
        how = f" ({previous})" if previous else ""
        ended = Failure(config.host, f"the head's guard ended without a word{how}", at=now)
        kept = restart_policy.awake(agent.store.load_memory(), boot_id(), ended, config.settings, now)
        agent.store.save_memory(kept)
        self.state: HeadState = head_core.start(config.group, config.settings, secrets.token_hex(16), kept, now)
        self.server = Server(
            config.group.name,
            key,
            frozenset(each.address for each in config.group.members if each.host != config.host),
            self._on_report,
            agent.control.verb,
            agent.control.get,
            config.settings.silence_timeout + 5,
        )

    @property
    def liveness(self) -> LivenessState | None:
        return self.engine.state if self.engine is not None else None

    def begin(self, task: Callable[[str, Coroutine[None, None, None]], None]) -> None:
        """Take the control port; `task` keeps a coroutine running under a name."""
        self._task = task
        task("listen", self.server.listen(self._agent.config.bind, self._agent.config.control_port))

    def line(self) -> str:
        return status.line(self.state, self.liveness, time.monotonic())

    def why_not(self) -> str:
        return status.why_not(self.state, self.liveness, time.monotonic())

    def post(self, event: HeadEvent) -> None:
        self._agent.post(lambda: self._step(event))

    def _on_report(self, report: Report) -> View | None:
        """A report from the network; the answer to it, if there is one."""
        self._reply = None
        self.post(report)
        return self._reply

    def _step(self, event: HeadEvent) -> None:
        agent = self._agent
        before = self.state
        self.state, actions = head_core.step(before, event, time.monotonic())
        if self.state.phase != before.phase:
            agent.say(f"{before.phase} -> {self.state.phase} {self.state.reason}".rstrip())
            self._watch_engine()
        for action in actions:
            if isinstance(action, head_core.Reply):
                if action.host == agent.config.host:
                    agent.post_member(action.view)
                else:
                    self._reply = action.view
            elif isinstance(action, head_core.Tell):
                for host, view in head_core.told(self.state).items():
                    if host == agent.config.host:
                        agent.post_member(view)
                    else:
                        self.server.push(host, view)
            elif isinstance(action, head_core.Remember):
                agent.store.save_memory(self.state.memory)
            else:
                agent.exit(action.reason, action.failure, action.deliberate)

    def _watch_engine(self) -> None:
        """From `run` on, and no longer: an engine that drains or dies is asked nothing."""
        if self.engine is None and self.state.phase == "run":
            self.engine = Engine(self._agent.config, self._api_key, self._ready, self._stalled)
            self._task("engine", self.engine.run())
        elif self.state.phase != "run":
            self._agent.cancel("engine")

    def _ready(self) -> None:
        self._agent.say("every DP rank has answered")
        self.post(head_core.Ready())

    def _stalled(self, reason: str) -> None:
        self.post(head_core.Stalled(reason))
