"""`muster logs`: the last lines of every host's unit, or the failure bundles of all hosts in one file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from muster.commands import options
from muster.status.failures import Failure, Gathered, gather

SHOWN_LINES = 5
"""Lines of a failed process that are printed; the file has everything that was kept."""


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
@click.option("--failure", is_flag=True, help="Write what the guards kept of the last failure to one file.")
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

    With --failure: gather what the guards kept of the last failure into one JSON file. A bundle has the last lines of
    every process, the unit's state, kernel lines with Xids, GPU memory and the plan's digest. Each host keeps its
    newest 10, of at most 512 KiB.
    """
    from muster.status.ask_guards import guards_of

    if out and not failure:
        raise click.UsageError("--out goes with --failure")
    with guards_of(inventory_file, recipe_name, overrides) as guards:
        plan = guards.plan
        if not failure:
            units = {name: list(host.units) for name, host in plan.hosts.items()}
            sys.exit(_print(guards.ask("journal", count=lines, units=units)))
        # Not every host kept every failure: the group's newest is found among all of them.
        gathered = gather(plan.group, plan.digest, guards.ask("logs", count=10), count)
    _write(gathered, out)
    for host, why in gathered.silent.items():
        click.echo(f"{host}: {why}", err=True)
    sys.exit(1 if gathered.silent else 0)


def _print(answers: Mapping[str, Mapping[str, Any]]) -> int:
    """Print every host's lines after its name; return 1 when a host did not answer."""
    status = 0
    for host, reply in answers.items():
        answer = reply.get("answer") or {}
        error = reply.get("error") or answer.get("error")
        if error:
            status = 1
            click.echo(f"{host}: {error}", err=True)
        for text in answer.get("lines", ()):
            for line in text.splitlines():
                click.echo(f"{host}  {line}")
    return status


def _write(gathered: Gathered, out: str | None) -> None:
    text = json.dumps(gathered.as_json(), indent=2) + "\n"
    if out == "-":
        click.echo(text, nl=False)
        return
    if not gathered.failures:
        click.echo(f"{gathered.group}: no failure was kept on {', '.join(gathered.hosts) or 'any host'}")
        return
    newest = gathered.failures[0]
    path = Path(out or f"failure-{gathered.group}-{newest.wall.translate({45: None, 58: None})}.json")
    path.write_text(text, encoding="utf-8")
    click.echo(failure_text(newest))
    count = len(gathered.failures)
    click.echo(f"\n{path}: {count} failure{'s' if count > 1 else ''}, bundles of {', '.join(newest.bundles)}")


def failure_text(failure: Failure) -> str:
    """Return a failure for people: time, host, reason, and the last lines of the process that failed."""
    host = failure.host or "(no host kept the first failure)"
    lines = [f"{failure.wall}  generation {failure.generation[:8] or '-'}", f"{host}: {failure.reason}"]
    for process in failure.bundles.get(failure.host, {}).get("processes", ()):
        if process["name"] == failure.process:
            lines += [f"  {line}" for line in str(process["lines"]).splitlines()[-SHOWN_LINES:]]
    return "\n".join(lines)
