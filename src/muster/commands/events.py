"""`muster events`: what happened to the groups of an inventory, from the journals of all its hosts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from muster.commands import journal_text, options

if TYPE_CHECKING:
    from muster.status.host_events import HostEvent


@click.command(
    epilog="""\b
Examples:
  muster events inventories/h200-16.py
  muster events inventories/h200-16.py kimi-k2-instruct --since 3d
  muster events inventories/h200-16.py kimi-k2-instruct --format json \\
    | jq 'map(select(.event == "restart")) | length'

\b
Exit status: 0 every host answered, 1 some did not, 2 wrong input.
"""
)
@options.over_inventory()
@click.option("--since", metavar="WHEN", help="The newest events since then: 90s, 10m, 2h, 3d, or a time in UTC.")
@click.option("--count", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Events of each host.")
@options.output_format("text", "json")
def events(
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    since: str | None,
    count: int,
    form: str,
) -> None:
    """Show what happened to the groups of INVENTORY, oldest first: starts, failures, restarts, holds, resumes, blocked
    hosts. With RECIPE or --group: to that group.

    Each host's guard keeps them in the host's journal, for as long as that keeps its entries; times are the hosts' own,
    in UTC. A guard of an earlier version has told none.
    """
    from muster.status import host_events

    begin = journal_text.since(since) if since else {}
    answers = host_events.ask(inventory_file, recipe_name, overrides, begin, count)
    found = host_events.merged(answers)
    if form == "json":
        click.echo(json.dumps([event.as_json() for event in found], indent=2))
    else:
        for line in event_lines(found, with_group=options.means_all_groups(recipe_name, overrides)):
            click.echo(line)
    silent = {host: answer["error"] for host, answer in answers.items() if "error" in answer}
    for host, error in silent.items():
        click.echo(f"{host}: {error}", err=True)
    sys.exit(1 if silent else 0)


def event_lines(events: Sequence[HostEvent], *, with_group: bool = False) -> Iterator[str]:
    """Yield a line for each event: time, host, group where asked for, kind, text."""
    wide = max((len(event.host) for event in events), default=0)
    for event in events:
        group = f"{event.group}  " if with_group else ""
        yield f"{event.when}  {event.host:{wide}}  {group}{event.event:8} {event.text}"
