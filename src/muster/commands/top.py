"""`muster top`: a group's status, load and last events, live in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from muster.commands import options
from muster.commands.events import event_lines
from muster.commands.status import render
from muster.hosts.run_options import as_typed
from muster.status.group_status import GroupStatus, group_status

if TYPE_CHECKING:
    from muster.status.ask_guards import Guards
    from muster.status.host_events import HostEvent

SHOWN_EVENTS = 10
ANSWER_SECONDS, SILENT_PAUSE = 5.0, 20.0
"""For one host's answer, and until a host without one is asked again."""
EVENTS_EVERY = 10.0
"""Seconds between two readings of the hosts' journals."""


@click.command(
    epilog="""\b
Examples:
  muster top inventories/h200-16.py kimi-k2-instruct
  muster top inventories/h200-16.py kimi-k2-instruct --every 5

\b
Exit status: that of the last status shown: 0 every DP rank answered
recently and no host of INVENTORY is left out, 1 otherwise; 2 wrong input.
"""
)
@options.over_inventory()
@click.option("--every", default=1.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds.")
def top(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], every: float) -> None:
    """Show the group of RECIPE live: what `muster status` shows, its load, and the last events of all its hosts. Ctrl-C
    ends it.

    Without a terminal it is shown once. Every look asks each host over the SSH session that is open already.
    """
    from muster.status.ask_guards import guards_of

    where = as_typed(inventory_file, recipe_name, overrides)
    console = Console(highlight=False)
    with guards_of(inventory_file, recipe_name, overrides) as guards:
        last = group_status(guards.plan, guards.ask("status"), guards.digests)
        if console.is_terminal:
            guards.be_brief(ANSWER_SECONDS, SILENT_PAUSE)
            last = _live(guards, last, console, where, every)
        else:
            console.print(screen(last, (), where))
    sys.exit(0 if last.whole else 1)


def _live(guards: Guards, first: GroupStatus, console: Console, where: str, every: float) -> GroupStatus:
    """Show one status after another until interrupted; return the last one."""
    last, events = first, _EventReader(guards)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + every
        try:
            while True:
                live.update(screen(last, events.newest(), where), refresh=True)
                time.sleep(max(0.0, due - time.monotonic()))
                due = time.monotonic() + every
                last = group_status(guards.plan, guards.ask("status"), guards.digests)
        except KeyboardInterrupt:
            return last


class _EventReader:
    """The last events of a group's hosts, read again every EVENTS_EVERY seconds."""

    def __init__(self, guards: Guards, clock: Callable[[], float] = time.monotonic) -> None:
        self._guards, self._clock = guards, clock
        self._read = float("-inf")
        self._events: Sequence[HostEvent] = ()

    def newest(self) -> Sequence[HostEvent]:
        from muster.status import host_events

        if self._clock() - self._read >= EVENTS_EVERY:
            request = host_events.question(SHOWN_EVENTS)
            answers = self._guards.journals(dict.fromkeys(self._guards.plan.hosts, request))
            self._events = host_events.merged(answers)[-SHOWN_EVENTS:]
            self._read = self._clock()
        return self._events


def screen(status: GroupStatus, events: Sequence[HostEvent], where: str) -> RenderableType:
    """Return the whole picture: time and load, the status, the last events, newest last."""
    parts: list[RenderableType] = [render(status, where)]
    load = status.load
    if load is not None:
        parts.append(Text(f"\nload: {load[0]:,.0f} tokens per second, {load[1]:,} requests in flight"))
    if events:
        parts += [
            "",
            Text("last events"),
            *(Text(line, no_wrap=True, overflow="ellipsis") for line in event_lines(events)),
        ]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Group(*parts, Text(f"\n{now}", style="dim"))
