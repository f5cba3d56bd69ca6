"""The head's side of a guard: carries out what `head_core` decides, and owns the control port and the engine watch."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from . import events, head_core, restart_policy, status
from .config import Config
from .control_port import NOT_YET, ControlPort
from .engine_watch import EngineWatch
from .events import Event
from .head_core import HeadEvent, HeadState
from .http import Response
from .liveness import LivenessState
from .member_core import MemberEvent
from .messages import RUN, Failure, Report, View
from .named_tasks import NamedTasks
from .state_store import StateStore, boot_id


class HeadServices(Protocol):
    """What the head needs of the guard around it."""

    config: Config
    store: StateStore
    tasks: NamedTasks

    def log(self, text: str) -> None: ...

    def tell(self, event: Event) -> None: ...

    def post(self, work: Callable[[], None]) -> None: ...

    def post_member(self, event: MemberEvent) -> None: ...

    def exit(self, reason: str, failure: Failure | None, deliberate: bool) -> None: ...


class Head:
    """Exists on the head alone, beside the member that every host has."""

    def __init__(self, services: HeadServices, key: bytes, api_key: str, previous: str) -> None:
        """`previous`: how the guard before this one ended, as systemd reports it; empty when unknown."""
        self._services = services
        self._key = key
        self._api_key = api_key
        self._reply: View | None = None
        self._control_port: ControlPort | None = None
        self.engine_watch: EngineWatch | None = None
        config = services.config
        now = time.monotonic()
        how = f" ({previous})" if previous else ""
        ended = Failure(config.host, f"the head's guard ended without a word{how}", at=now)
        kept = services.store.load_record()
        record = restart_policy.restore(kept, boot_id(), ended, config.settings, now)
        services.store.save_record(record)
        for news in events.of_records(kept, record):
            services.tell(news)
        state = head_core.start(config.group, config.settings, secrets.token_hex(16), record, now)
        loaders = config.loading.names if config.loading is not None else ()
        self.state: HeadState = replace(state, has_api=config.kept_for is None, loaders=loaders)

    def listen(self, on_command: Callable[[str], Mapping[str, str]], on_get: Callable[[str, str], Response]) -> None:
        """Take the control port. `on_command` takes a command's name, `on_get` a path and the key sent with it."""
        config = self._services.config
        self._control_port = ControlPort(
            config.group.name,
            self._key,
            frozenset(each.address for each in config.group.members if each.host != config.host),
            self._on_report,
            on_command,
            on_get,
            config.settings.silence_timeout + 5,
        )
        self._services.tasks.start("listen", self._control_port.listen(config.bind, config.control_port))

    def close(self) -> None:
        if self._control_port is not None:
            self._control_port.close()

    @property
    def port_problem(self) -> str:
        """Why the control port is not open, or empty."""
        return self._control_port.problem if self._control_port is not None else NOT_YET

    @property
    def last_refusal(self) -> str:
        return self._control_port.last_refusal if self._control_port is not None else ""

    @property
    def refusals(self) -> Mapping[str, str]:
        """Member's address -> why its last connection was closed."""
        return self._control_port.refusals if self._control_port is not None else {}

    @property
    def liveness(self) -> LivenessState | None:
        return self.engine_watch.state if self.engine_watch is not None else None

    @property
    def metrics_problem(self) -> str:
        return self.engine_watch.problem if self.engine_watch is not None else ""

    def summary(self) -> str:
        return status.summary(self.state, self.liveness, time.monotonic())

    def explain(self) -> str:
        return status.explain(self.state, self.liveness, time.monotonic())

    def keep_hold(self, command: head_core.Command) -> str:
        """Write down what an operator's command makes of the hold, before it is carried out; why not, or empty."""
        return self._services.store.keep_hold(head_core.record_after(self.state.record, command))

    def post(self, event: HeadEvent) -> None:
        self._services.post(lambda: self._step(event))

    def _on_report(self, report: Report) -> View | None:
        """A report from the network; the answer to it, if there is one."""
        self._reply = None
        self.post(report)
        return self._reply

    def _step(self, event: HeadEvent) -> None:
        services = self._services
        before = self.state
        self.state, actions = head_core.step(before, event, time.monotonic())
        if self.state.phase != before.phase:
            services.log(f"{before.phase} -> {self.state.phase} {self.state.reason}".rstrip())
            self._watch_engine()
        by = event.by if isinstance(event, head_core.Command) else ""
        for news in events.of_head(before, self.state, by):
            services.tell(news)
        for action in actions:
            if isinstance(action, head_core.Reply):
                if action.host == services.config.host:
                    services.post_member(action.view)
                else:
                    self._reply = action.view
            elif isinstance(action, head_core.PushViews):
                for host, view in head_core.pushed_views(self.state).items():
                    if host == services.config.host:
                        services.post_member(view)
                    elif self._control_port is not None:
                        self._control_port.push(host, view)
            elif isinstance(action, head_core.SaveRecord):
                services.store.save_record(self.state.record)
            elif isinstance(action, head_core.SaveStart):
                services.store.save_start(action.seconds)
            else:
                services.exit(action.reason, action.failure, action.deliberate)

    def _watch_engine(self) -> None:
        """Watch during `run` only: a draining or dying engine is asked nothing."""
        if not self.state.has_api:
            return
        if self.engine_watch is None and self.state.phase == RUN:
            self.engine_watch = EngineWatch(self._services.config, self._api_key, self._ready, self._stalled)
            self._services.tasks.start("engine", self.engine_watch.run())
        elif self.state.phase != RUN:
            self._services.tasks.cancel("engine")

    def weights_served(self) -> None:
        """The daemons of every host serve: a host's serve once those of all hosts have loaded."""
        self.post(head_core.Ready())

    def _ready(self) -> None:
        self.post(head_core.Ready())

    def _stalled(self, reason: str) -> None:
        self.post(head_core.Stalled(reason))
