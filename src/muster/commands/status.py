"""`muster status`: the group as it is now, reported by every host."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from muster.commands import fleet_text, options
from muster.hosts.run_options import as_typed
from muster.on_host.systemd_units import VLLM_PREFIX
from muster.status.failures import decisive
from muster.status.fleet_status import FleetStatus, fleet_status
from muster.status.group_status import GroupStatus, group_status

Status = TypeVar("Status", GroupStatus, FleetStatus)

SHOWN_LINES = 5
"""Lines of the failure's log that are shown; `muster logs --failure` has everything that was kept."""
SHOWN_CHARACTERS = 150
"""Characters of each of these lines."""
COLUMNS = ("host", "rank", "DP ranks", "unit", "engine", "tok/s", "proof", "systemd restarts")
NUMBERS = ("rank", "tok/s", "proof", "systemd restarts")


@click.command(
    epilog="""\b
Examples:
  muster status inventories/h200-16.py kimi-k2-instruct
  muster status inventories/h200-16.py kimi-k2-instruct --watch
  muster status inventories/h200-16.py kimi-k2-instruct --format json \\
    | jq .phase
  muster status inventories/fleet.py
  muster status inventories/fleet.py --group kimi-a

\b
Exit status: 0 every DP rank answered recently and no host of INVENTORY
is left out (of every group without RECIPE), 1 otherwise, 2 wrong input.
With --watch: that of the last status.
"""
)
@options.over_inventory()
@click.option("--watch", is_flag=True, help="Repeat until interrupted.")
@click.option("--every", default=3.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds, with --watch.")
@options.output_format("table", "json")
def status(
    inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], watch: bool, every: float, form: str
) -> None:
    """Show the group of RECIPE as it is now: its phase and generation, whether it runs what these arguments plan, every
    host's rank, unit and engine, and the first failure of the most recent failed generation.

    An unreachable host has a row too. With --watch and --format json: one line of JSON each time. Without RECIPE: a row
    for each group of INVENTORY, where they name theirs.
    """
    with _questions(inventory_file, recipe_name, overrides) as (ask, show):
        last = ask()
        if watch:
            last = _watch(last, _repeated(ask, every), form, show)
        elif form == "json":
            click.echo(json.dumps(last.as_json(), indent=2))
        else:
            Console(highlight=False).print(show(last))
    sys.exit(0 if last.whole else 1)


@contextmanager
def _questions(
    inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any]
) -> Iterator[tuple[Callable[[], Any], Callable[[Any], RenderableType]]]:
    """Connect to what is asked about, one group or all; yield what asks it, and what shows an answer."""
    from muster.status import ask_guards

    def one(guards: Any) -> GroupStatus:
        return group_status(guards.plan, guards.ask("status"), guards.digests)

    if options.means_all_groups(recipe_name, overrides):
        with ask_guards.guards_of_fleet(inventory_file, overrides) as fleet:
            yield (
                lambda: fleet_status(ask_guards.ask_fleet(fleet.groups, one), fleet.edges.plan, fleet.edges.load()),
                lambda status: fleet_text.render(status, inventory_file),
            )
        return
    with ask_guards.guards_of(inventory_file, recipe_name, overrides) as guards:
        where = as_typed(inventory_file, recipe_name or guards.plan.recipe, overrides)
        yield lambda: one(guards), lambda status: render(status, where)


def _repeated(ask: Callable[[], Status], every: float) -> Iterator[Status]:
    while True:
        time.sleep(every)
        yield ask()


def _watch(first: Status, more: Iterator[Status], form: str, show: Callable[[Status], RenderableType]) -> Status:
    """Show one status after another until interrupted; return the last one."""
    console, last = Console(highlight=False), first
    live = Live(show(first), console=console, auto_refresh=False) if form == "table" and console.is_terminal else None
    try:
        if live is not None:
            live.start()
        while True:
            if form == "json":
                click.echo(json.dumps(last.as_json()))
            elif live is not None:
                live.update(show(last), refresh=True)
            else:
                console.print(show(last), "")
            last = next(more)
    except (KeyboardInterrupt, StopIteration):
        return last
    finally:
        if live is not None:
            live.stop()


def render(status: GroupStatus, where: str = "INVENTORY RECIPE") -> RenderableType:
    """Return a status for a terminal: a table of 80 columns, and longer texts as lines below it.

    Args:
        status: what to show.
        where: inventory and recipe as they were typed, for the next command.
    """
    colour = (
        "green"
        if status.whole
        else ("yellow" if status.phase in ("gather", "starting", "backoff", "restarting") or status.ready else "red")
    )
    title: list[str | tuple[str, str]] = [f"{status.group}  ", (status.phase, colour), *_reasons(status)]
    restarts = "-" if status.restarts is None else str(status.restarts)
    planned = " as planned" if status.as_planned else ""
    line = f"generation {status.generation[:8] or '-'}  plan {status.digest or '-'}{planned}  group restarts {restarts}"
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=name != "host")
    for row in status.hosts:
        table.add_row(
            row.host,
            str(row.node_rank),
            _ranks(row.dp_ranks),
            _unit(row.unit),
            row.engine or "-",
            "-" if row.tokens_per_s is None else f"{row.tokens_per_s:.0f}",
            "-" if row.proof is None else f"{row.proof:.0f} s",
            "-" if row.restarts is None else str(row.restarts),
        )
    parts: list[RenderableType] = [Text.assemble(*title), Text(line), *map(Text, _differences(status, where))]
    parts += ["", table]
    notes = [Text(f"{row.host}: {row.note}") for row in status.hosts if row.note]
    parts += ["", *notes] if notes else []
    loads = [Text(line) for line in (status.weights, status.loaded) if line]
    parts += ["", *loads] if loads else []
    parts += ["", Text(status.change, "yellow")] if status.change else []
    if status.failure:
        failure = status.failure
        cause = f"{failure['host']}: {failure['reason']}"
        parts += ["", Text(f"last failure, {_ago(failure.get('age'))}{_whose(failure, status)}: {cause}")]
        lines = str(failure.get("lines") or "")
        why, last = decisive(lines), [_shortened(text) for text in lines.splitlines()[-SHOWN_LINES:]]
        if why and why not in str(failure["reason"]):
            parts.append(Padding(Text(why, style="bold"), (0, 0, 0, 2)))
            last = [text for text in last if text != _shortened(why)]
        parts += [Padding(Text(text), (0, 0, 0, 2)) for text in last]
    return Group(*parts)


def _differences(status: GroupStatus, where: str) -> Iterator[str]:
    """Yield what these arguments and the running group do not share, and how to go on where nothing runs."""
    if status.as_planned is False:
        yield f"these arguments plan {status.planned}: muster deploy {where} --dry --diff says what differs"
    if status.outside:
        yield f"without {', '.join(status.outside)}, which the running group leaves out: muster deploy {where}"
    if status.beyond:
        yield f"with {', '.join(status.beyond)}, which these arguments do not name: muster deploy {where}"
    if status.phase == "stopped":
        yield f"muster resume {where} starts it again"
    if status.phase == "failed":
        yield f"muster resume {where} starts it again, once the reason of its failures is mended"


def _whose(failure: Mapping[str, Any], status: GroupStatus) -> str:
    """Return whether a failure was the running plan's, where both are known."""
    digest = failure.get("digest")
    if not digest or not status.digest:
        return ""
    return ", of this plan" if digest == status.digest else f", of plan {digest}"


def _shortened(line: str) -> str:
    """Return a log line that fits two terminal lines: cut, and without vLLM's prefix."""
    text = VLLM_PREFIX.sub("", line)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _reasons(status: GroupStatus) -> list[str]:
    """Return the head's reason without its phase and without the notes that follow the table."""
    notes = {f"{row.host}: {row.note}" for row in status.hosts}
    left = [part for part in re.split("; |, (?=starts in )", status.cause) if part and part not in notes]
    return [f"  {'; '.join(left)}"] if left else []


def _unit(text: str) -> str:
    """Return the more specific word of `active (running)`."""
    active, _, sub = text.partition(" (")
    return (sub.rstrip(")") if active in ("activating", "deactivating") else active) or "-"


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "at an unknown time"
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"


def _ranks(ranks: Sequence[int]) -> str:
    if not ranks:
        return "-"
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"
