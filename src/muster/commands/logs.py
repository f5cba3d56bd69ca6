"""`muster logs`: what every host's unit wrote, or the failure bundles of all hosts in one file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.commands import journal_text, options
from muster.errors import unknown
from muster.status.failures import Failure, Gathered, gather

if TYPE_CHECKING:
    from muster.status.ask_guards import Guards

FOLLOW_SECONDS = 2.0
FOLLOWED_LINES = 2000
"""Lines of one host that are read at once while following."""
SHOWN_LINES = 5
"""Lines of a failed process that are printed; the file has everything that was kept."""


@click.command(
    epilog="""\b
Examples:
  muster logs inventories/h200-16.py kimi-k2-instruct
  muster logs inventories/h200-16.py kimi-k2-instruct --since 10m --lines 500
  muster logs inventories/h200-16.py kimi-k2-instruct --follow --host h200-0
  muster logs inventories/h200-16.py kimi-k2-instruct --failure
  muster logs inventories/h200-16.py kimi-k2-instruct --failure --out - \\
    | jq .failures[0].reason

\b
Exit status: 0 every host answered, 1 some did not, 2 wrong input.
"""
)
@options.over_inventory()
@click.option("--lines", default=20, show_default=True, type=click.IntRange(1, 10_000), help="Lines of each host.")
@click.option("--since", metavar="WHEN", help="The newest lines since then: 90s, 10m, 2h, 3d, or a time in UTC.")
@click.option("--host", "names", multiple=True, metavar="HOST", help="This host alone; may be repeated.")
@click.option("--follow", "-f", is_flag=True, help="Print new lines as they come, until interrupted.")
@click.option("--all", "polling", is_flag=True, help="The guard's own polling and canaries too.")
@click.option("--failure", is_flag=True, help="Write what the guards kept of the last failure to one file.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 10), help="Failures, with --failure.")
@click.option("--out", metavar="FILE", help="File to write, - for standard output. [default: failure-GROUP-TIME.json]")
def logs(
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    lines: int,
    since: str | None,
    names: Sequence[str],
    follow: bool,
    polling: bool,
    failure: bool,
    count: int,
    out: str | None,
) -> None:
    """Show the last lines of every host of the group of RECIPE, oldest first, with their time in UTC.

    Left out are answered requests of the host itself (the guard's polling and canaries) and the engine's figures while
    it is idle; --all shows them.

    With --failure: gather what the guards kept of the last failure into one JSON file. A bundle has the last lines of
    every process, the unit's state, kernel lines with Xids, GPU memory and the plan's digest. Each host keeps its
    newest 10, of at most 512 KiB.
    """
    from muster.status.ask_guards import guards_of

    if out and not failure:
        raise click.UsageError("--out goes with --failure")
    if failure and (since or names or follow or polling):
        raise click.UsageError("--since, --host, --follow and --all do not go with --failure")
    begin = journal_text.since(since) if since else {}
    with guards_of(inventory_file, recipe_name, overrides) as guards:
        plan = guards.plan
        if not failure:
            for name in names:
                if name not in plan.hosts:
                    raise unknown("host", name, plan.hosts, where=inventory_file)
            request = {"count": lines, "polling": polling, **begin}
            requests = dict.fromkeys(names or plan.hosts, request)
            if follow:
                sys.exit(_follow(guards, requests))
            answers = guards.journals(requests)
            if not any("error" in answer or answer["lines"] for answer in answers.values()):
                click.echo(
                    f"{plan.group}: no lines on {', '.join(requests)}{f' since {since}' if since else ''}", err=True
                )
            sys.exit(print_journals(answers))
        # Not every host kept every failure: the group's newest is found among all of them.
        gathered = gather(plan.group, plan.digest, guards.ask("logs", count=10), count)
    _write(gathered, out)
    for host, why in gathered.silent.items():
        click.echo(f"{host}: {why}", err=True)
    sys.exit(1 if gathered.silent else 0)


def print_journals(answers: Mapping[str, Mapping[str, Any]]) -> int:
    """Print the lines of all hosts in the order of time; return 1 when a host did not answer."""
    for line in journal_text.merged(answers):
        click.echo(line)
    errors = {host: answer["error"] for host, answer in answers.items() if "error" in answer}
    for host, error in errors.items():
        click.echo(f"{host}: {error}", err=True)
    return 1 if errors else 0


def _follow(guards: Guards, requests: dict[str, dict[str, Any]]) -> int:
    """Print lines as they come until interrupted; return the status of the last reading."""
    silent: set[str] = set()
    status = 0
    try:
        while True:
            answers = guards.journals(requests)
            # A host that stays out of reach is printed once.
            failed = {host for host, answer in answers.items() if "error" in answer}
            print_journals({host: answer for host, answer in answers.items() if host not in silent & failed})
            silent, status = failed, 1 if failed else 0
            for host, answer in answers.items():
                if answer.get("cursor"):
                    polling = requests[host]["polling"]
                    requests[host] = {"count": FOLLOWED_LINES, "polling": polling, "after": answer["cursor"]}
            time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
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
    for name, bundle in failure.bundles.items():
        if stacks := bundle.get("stacks"):
            lines.append(f"stacks of {name}, in the file: {', '.join(sorted(stacks))}")
    return "\n".join(lines)
