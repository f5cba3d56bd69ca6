"""`muster logs`: the first-failure bundles of every host, gathered into one file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from muster.commands.plan import parse_data


@click.command(
    epilog="""\b
Examples:
  muster logs inventories/h200-16.py kimi-k2-instruct                  the last failure of each host
  muster logs inventories/h200-16.py kimi-k2-instruct --count 5 --out failure.json

The guard keeps a bounded number of bundles on each host: last lines of every process, unit state, Xid lines, GPU
memory, the plan's digest. Exit status: 0 all hosts answered, 1 some did not.
"""
)
@click.argument("inventory_file", metavar="INVENTORY", type=click.Path())
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--data", "pairs", multiple=True, metavar="K=V", help="A setting, as pyinfra's --data.")
@click.option("--failure", is_flag=True, help="Only hosts that failed first in some generation.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 20), help="Bundles of each host.")
@click.option("--out", type=click.Path(dir_okay=False), help="File to write; standard output otherwise.")
def logs(
    inventory_file: str, recipe_name: str, pairs: Sequence[str], failure: bool, count: int, out: str | None
) -> None:
    """Gather what the guards kept of failures, from all hosts of the group of RECIPE, as JSON."""
    from muster.guards import guards_of

    with guards_of(inventory_file, recipe_name, parse_data(pairs)) as guards:
        answers = guards.ask("logs", count=count)
        plan = guards.plan
    hosts = {}
    for name in plan.hosts:
        told = answers[name]
        answer = told.get("answer") or {}
        error = told.get("error") or answer.get("error")
        hosts[name] = {"error": error} if error else {"bundles": answer.get("bundles", [])}
    if failure:
        hosts = {name: told for name, told in hosts.items() if told.get("bundles") or "error" in told}
    text = json.dumps({"group": plan.group, "digest": plan.digest, "hosts": hosts}, indent=2)
    if out:
        Path(out).write_text(text + "\n", encoding="utf-8")
        click.echo(f"{sum(len(told.get('bundles') or ()) for told in hosts.values())} bundles in {out}", err=True)
    else:
        click.echo(text)
    sys.exit(1 if any("error" in told for told in hosts.values()) else 0)
