"""`muster history`: the verified plans that the hosts of a group keep."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from muster.commands import options
from muster.hosts.printable import one_line
from muster.plan.plan_history import KeptPlan
from muster.plan.plan_history import history as history_of

COLUMNS = ("plan", "verified", "start", "without service", "by", "release")
NUMBERS = ("start", "without service")
WIDE = 200
"""Columns where nobody's terminal sets them."""


@click.command(
    epilog="""\b
Examples:
  muster history inventories/h200-16.py kimi-k2-instruct
  muster history inventories/h200-16.py kimi-k2-instruct --format json \\
    | jq -r .plans[].digest

\b
Exit status: 0 every host answered, 1 some did not, 2 wrong input.
"""
)
@options.over_inventory()
@options.output_format("table", "json")
def history(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], form: str) -> None:
    """Show the last plans of the group of RECIPE that were verified, newest first: when, by whom, and how long the
    change left the group without service.

    Each host keeps the last five. `muster rollback` puts one of them back.
    """
    from muster.status.ask_guards import guards_of

    with guards_of(inventory_file, recipe_name, overrides) as guards:
        answers = guards.kept_plans("list")
    plans = history_of({host: answer["plans"] for host, answer in answers.items() if "error" not in answer})
    silent = {host: answer["error"] for host, answer in answers.items() if "error" in answer}
    if form == "json":
        found = {"group": guards.plan.group, "plans": [plan.as_json() for plan in plans], "silent": silent}
        click.echo(json.dumps(found, indent=2))
    else:
        show(guards.plan.group, plans, silent)
    for host, why in silent.items():
        click.echo(f"{host}: {why}", err=True)
    sys.exit(1 if silent else 0)


def show(group: str, plans: Sequence[KeptPlan], silent: Mapping[str, str]) -> None:
    """Print a history as a table; below it, the hosts that lack a copy."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    if not plans:
        console.print(f"{group}: no verified plan is kept on these hosts")
        return
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in NUMBERS else "left", no_wrap=name not in ("by", "release"))
    for plan in plans:
        measured = map(_seconds, (plan.seconds.start, plan.seconds.without_service))
        texts = (plan.digest, plan.verified, *measured, plan.by, plan.release)
        table.add_row(*map(one_line, texts))
    console.print(table)
    for plan in plans:
        lacking = [name for name in plan.lacking if name not in silent]
        if lacking:
            console.print(one_line(f"{', '.join(lacking)}: no copy of plan {plan.digest}"))


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"
