"""`muster status`: the group as it is now, from every host."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from muster.commands.plan import parse_data
from muster.group_status import GroupStatus, group_status

LAST_LINES = 5
"""Lines of the first failure's log that are shown; `muster logs` has all."""


@click.command(
    epilog="""\b
Examples:
  muster status inventories/h200-16.py kimi-k2-instruct
  muster status inventories/h200-16.py kimi-k2-instruct --watch
  muster status inventories/h200-16.py kimi-k2-instruct --format json | jq .phase

Exit status: 0 every DP rank has answered lately, 1 not so, 2 wrong input.
"""
)
@click.argument("inventory_file", metavar="INVENTORY", type=click.Path())
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--data", "pairs", multiple=True, metavar="K=V", help="A setting, as pyinfra's --data.")
@click.option("--watch", is_flag=True, help="Ask again every few seconds, until interrupted.")
@click.option("--every", default=3.0, show_default=True, type=click.FloatRange(min=1), help="Seconds, with --watch.")
@click.option("--format", "kind", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(inventory_file: str, recipe_name: str, pairs: Sequence[str], watch: bool, every: float, kind: str) -> None:
    """Show phase, generation, every host's rank and engine, and the first failure of the group of RECIPE."""
    from muster.guards import guards_of

    console = Console()
    with guards_of(inventory_file, recipe_name, parse_data(pairs)) as guards:

        def look() -> GroupStatus:
            return group_status(guards.plan, guards.ask("status"))

        if watch and kind == "table":
            with Live(console=console, auto_refresh=False) as live:
                while True:
                    live.update(render(look()), refresh=True)
                    time.sleep(every)
        found = look()
    if kind == "json":
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        console.print(render(found))
    sys.exit(0 if found.ready else 1)


def render(found: GroupStatus) -> RenderableType:
    """Return a status for a terminal."""
    colour = "green" if found.ready else ("yellow" if found.phase in ("gather", "starting", "backoff") else "red")
    line = Text.assemble(
        f"{found.group}  ",
        (found.phase, colour),
        f"  generation {found.generation[:8] or '-'}  plan {found.digest or '-'}",
        f"  restarts {'-' if found.restarts is None else found.restarts}",
    )
    table = Table(box=None, pad_edge=False)
    for name in ("host", "rank", "DP ranks", "unit", "engine", "tok/s", "proof", "restarts", ""):
        table.add_column(name, justify="right" if name in ("rank", "tok/s", "proof", "restarts") else "left")
    for row in found.hosts:
        table.add_row(
            row.host,
            str(row.node_rank),
            _ranks(row.dp_ranks),
            row.unit or "-",
            row.child or "-",
            "-" if row.tokens_per_s is None else f"{row.tokens_per_s:.0f}",
            "-" if row.proof is None else f"{row.proof:.0f} s",
            "-" if row.restarts is None else str(row.restarts),
            row.note,
        )
    parts: list[RenderableType] = [line]
    if found.reason and found.reason != found.phase:
        parts.append(Text(found.reason))
    parts += ["", table]
    if found.failure:
        told = found.failure
        parts += ["", Text(f"last failure, {told.get('age', 0):.0f} s ago: {told['host']}: {told['reason']}")]
        parts += [Text(f"  {text}") for text in str(told.get("lines") or "").splitlines()[-LAST_LINES:]]
    return Group(*parts)


def _ranks(ranks: Sequence[int]) -> str:
    if not ranks:
        return "-"
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]}-{ranks[-1]}"
