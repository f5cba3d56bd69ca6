"""`muster logs`: what every host's unit said last, or the bundles of a failure from all hosts in one file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from muster.commands import options
from muster.status.failures import Failure, Gathered, gather

LAST_LINES = 5
"""Lines of a failed process that are printed; the file has all that was kept."""


@click.command(
    epilog="""\b
Examples:
  muster logs inventories/h200-16.py kimi-k2-instruct
  muster logs inventories/h200-16.py kimi-k2-instruct --lines 500
  muster logs inventories/h200-16.py kimi-k2-instruct --failure
  muster logs inventories/h200-16.py kimi-k2-instruct --failure --out - \\
    | jq .failures[0].reason

\b
Exit status: 0 every host answered, 1 some did not, 2 wrong input.
"""
)
@options.over_inventory()
@click.option("--lines", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Lines of each host.")
@click.option("--failure", is_flag=True, help="What the guards kept of the last failure, as one file.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 10), help="Failures, with --failure.")
@click.option("--out", metavar="FILE", help="File to write, - for standard output. [default: failure-GROUP-TIME.json]")
def logs(
    inventory_file: str,
    recipe_name: str,
    overrides: Mapping[str, Any],
    lines: int,
    failure: bool,
    count: int,
    out: str | None,
) -> None:
    """Show the last lines of every host of the group of RECIPE.

    With --failure: gather what the guards kept of the last failure from all hosts into one JSON file. A bundle has
    the last lines of every process, the unit's state, kernel lines with Xids, GPU memory and the plan's digest; each
    host keeps the newest 10, of at most 512 KiB.
    """
    from muster.status.ask_guards import guards_of

    if out and not failure:
        raise click.UsageError("--out goes with --failure")
    with guards_of(inventory_file, recipe_name, overrides) as guards:
        plan = guards.plan
        if not failure:
            units = {name: list(host.units) for name, host in plan.hosts.items()}
            sys.exit(_print(guards.ask("journal", count=lines, units=units)))
        # Each host may have missed failures that others kept: all of them, to find the newest of the group.
        found = gather(plan.group, plan.digest, guards.ask("logs", count=10), count)
    _write(found, out)
    for host, why in found.silent.items():
        click.echo(f"{host}: {why}", err=True)
    sys.exit(1 if found.silent else 0)


def _print(answers: Mapping[str, Mapping[str, Any]]) -> int:
    """Print every host's lines under its name; 1 where one gave none."""
    status = 0
    for host, told in answers.items():
        answer = told.get("answer") or {}
        error = told.get("error") or answer.get("error")
        if error:
            status = 1
            click.echo(f"{host}: {error}", err=True)
        for line in answer.get("lines", ()):
            click.echo(f"{host}  {line}")
    return status


def _write(found: Gathered, out: str | None) -> None:
    text = json.dumps(found.as_json(), indent=2) + "\n"
    if out == "-":
        click.echo(text, nl=False)
        return
    if not found.failures:
        click.echo(f"{found.group}: no failure was kept on {', '.join(found.hosts) or 'any host'}")
        return
    newest = found.failures[0]
    path = Path(out or f"failure-{found.group}-{newest.wall.translate({45: None, 58: None})}.json")
    path.write_text(text, encoding="utf-8")
    click.echo(tell(newest))
    count = len(found.failures)
    click.echo(f"\n{path}: {count} failure{'s' if count > 1 else ''}, bundles of {', '.join(newest.bundles)}")


def tell(failure: Failure) -> str:
    """Return a failure for a person: when, who, what, and the last lines of the process that failed."""
    where = failure.host or "(no host kept the first failure)"
    lines = [f"{failure.wall}  generation {failure.generation[:8] or '-'}", f"{where}: {failure.reason}"]
    for process in failure.bundles.get(failure.host, {}).get("processes", ()):
        if process["name"] == failure.process:
            lines += [f"  {line}" for line in str(process["lines"]).splitlines()[-LAST_LINES:]]
    return "\n".join(lines)
