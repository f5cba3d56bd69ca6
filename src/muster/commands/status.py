"""`muster status`: the group as it is now, from every host."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from muster.commands import options
from muster.status.group_status import GroupStatus, group_status

LAST_LINES = 5
"""Lines of the failure's log that are shown; `muster logs --failure` has all that was kept."""
LINE = 150
"""Characters of one of these lines."""
PREFIX = re.compile(r"^(\([^)]*\) )?([A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^]]*\] ?)?")
COLUMNS = ("host", "rank", "DP ranks", "unit", "engine", "tok/s", "proof", "restarts")
NUMBERS = ("rank", "tok/s", "proof", "restarts")


@click.command(
    epilog="""\b
Examples:
  muster status inventories/h200-16.py kimi-k2-instruct
  muster status inventories/h200-16.py kimi-k2-instruct --watch
  muster status inventories/h200-16.py kimi-k2-instruct --format json \\
    | jq .phase

\b
Exit status: 0 every DP rank has answered lately, 1 not so, 2 wrong input.
With --watch: as it was when interrupted.
"""
)
@options.over_inventory()
@click.option("--watch", is_flag=True, help="Ask again and again, until interrupted.")
@click.option("--every", default=3.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds, with --watch.")
@options.output_format("table", "json")
def status(
    inventory_file: str, recipe_name: str, overrides: Mapping[str, Any], watch: bool, every: float, form: str
) -> None:
    """Show the group of RECIPE as it is now: its phase and generation, every host's rank, unit and engine, and the
    first failure of the last generation that failed.

    A host that cannot be reached is a row. With --watch and --format json: one line of JSON each time.
    """
    from muster.status.ask_guards import guards_of

    with guards_of(inventory_file, recipe_name, overrides) as guards:

        def look() -> GroupStatus:
            return group_status(guards.plan, guards.ask("status"))

        found = look()
        if watch:
            found = _watch(found, _again(look, every), form)
        elif form == "json":
            click.echo(json.dumps(found.as_json(), indent=2))
        else:
            Console(highlight=False).print(render(found))
    sys.exit(0 if found.ready else 1)


def _again(look: Callable[[], GroupStatus], every: float) -> Iterator[GroupStatus]:
    while True:
        time.sleep(every)
        yield look()


def _watch(first: GroupStatus, more: Iterator[GroupStatus], form: str) -> GroupStatus:
    """Show one status after the other until interrupted; return the last one."""
    console, last = Console(highlight=False), first
    live = Live(render(first), console=console, auto_refresh=False) if form == "table" and console.is_terminal else None
    try:
        if live is not None:
            live.start()
        while True:
            if form == "json":
                click.echo(json.dumps(last.as_json()))
            elif live is not None:
                live.update(render(last), refresh=True)
            else:
                console.print(render(last), "")
            last = next(more)
    except (KeyboardInterrupt, StopIteration):
        return last
    finally:
        if live is not None:
            live.stop()


def render(found: GroupStatus) -> RenderableType:
    """Return a status for a terminal: what fits 80 columns in a table, what is longer in lines below it."""
    colour = "green" if found.ready else ("yellow" if found.phase in ("gather", "starting", "backoff") else "red")
    title: list[str | tuple[str, str]] = [f"{found.group}  ", (found.phase, colour), *_why(found)]
    restarts = "-" if found.restarts is None else str(found.restarts)
    line = f"generation {found.generation[:8] or '-'}  plan {found.digest or '-'}  restarts {restarts}"
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=name != "host")
    for row in found.hosts:
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
    parts: list[RenderableType] = [Text.assemble(*title), Text(line), "", table]
    notes = [Text(f"{row.host}: {row.note}") for row in found.hosts if row.note]
    parts += ["", *notes] if notes else []
    if found.failure:
        told = found.failure
        who = f"{told['host']}: {told['reason']}"
        parts += ["", Text(f"last failure, {_ago(told.get('age'))}: {who}")]
        last = str(told.get("lines") or "").splitlines()[-LAST_LINES:]
        parts += [Padding(Text(_shortened(text)), (0, 0, 0, 2)) for text in last]
    return Group(*parts)


def _shortened(line: str) -> str:
    """A line of a log as it fits two of a terminal: without what vLLM puts before it, and cut."""
    text = PREFIX.sub("", line)
    return text if len(text) <= LINE else text[: LINE - 1] + "…"


def _why(found: GroupStatus) -> list[str]:
    """The head's reason, without its phase and without what stands below the table as a host's own."""
    rest = found.reason.removeprefix(found.phase).lstrip(":, ")
    notes = {f"{row.host}: {row.note}" for row in found.hosts}
    left = [part for part in re.split("; |, (?=starts in )", rest) if part and part not in notes]
    return [f"  {'; '.join(left)}"] if left else []


def _unit(text: str) -> str:
    """`active (running)` in fewer letters: the part that says more."""
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
