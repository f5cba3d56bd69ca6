"""`muster key`: clients' keys at the edge, in effect on all edge hosts without a reload."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import click

from muster.commands import options
from muster.commands.columns import aligned
from muster.edge import key_records
from muster.errors import Refusal
from muster.hosts.all_hosts import each, reached
from muster.hosts.connect import Connected, connected
from muster.hosts.programs import Answer
from muster.hosts.run_programs import run_program
from muster.on_host import edge_keys
from muster.on_host.in_words import size
from muster.spec import inventory, inventory_source

_SECONDS = 60
_PREFIX = "sk-muster-"
_COUNT = click.IntRange(1, edge_keys.UNLIMITED)

Change = Callable[[edge_keys.Keys, list[str]], edge_keys.Keys]
"""From all records, and the models that are served, to those that change."""


@click.group()
def key() -> None:
    """Clients' keys at the edge hosts of INVENTORY (docs/edge.md): add, list, revoke. Hosts keep digests alone."""


@key.command()
@options.over_inventory(group=False)
@click.argument("name")
@click.option("--model", "models", multiple=True, help="That it may use; may be repeated. None: all.")
@click.option("--rate", type=_COUNT, help="Requests a minute. None: no limit.")
@click.option("--concurrent", type=_COUNT, help="Requests at once. None: no limit.")
@click.option("--days", type=click.IntRange(1, 36500), help="Until it ends. None: never.")
@click.pass_context
def add(
    ctx: click.Context,
    inventory_file: str,
    overrides: Mapping[str, Any],
    name: str,
    models: tuple[str, ...],
    rate: int | None,
    concurrent: int | None,
    days: int | None,
) -> None:
    """Make a key for NAME and print it, once: nobody can print it again. Each edge counts its limits by itself."""
    made = _PREFIX + secrets.token_urlsafe(32)
    now = int(time.time())

    def change(keys: edge_keys.Keys, served: list[str]) -> edge_keys.Keys:
        return key_records.added(
            keys, made, name, models=models, served=served, rate=rate, concurrent=concurrent, days=days, now=now
        )

    complete = _change(inventory_file, overrides, change)
    click.echo(made)
    ctx.exit(0 if complete else 1)


@key.command()
@options.over_inventory(group=False)
@click.argument("name")
@click.pass_context
def revoke(ctx: click.Context, inventory_file: str, overrides: Mapping[str, Any], name: str) -> None:
    """Refuse the key of NAME from now on; requests in flight end as they would."""
    complete = _change(inventory_file, overrides, lambda keys, _: key_records.revoked(keys, name, int(time.time())))
    click.echo(f"{name} is revoked" + ("" if complete else ", but not on every edge"), err=True)
    ctx.exit(0 if complete else 1)


@key.command(name="list")
@options.over_inventory(group=False)
@options.output_format("text", "json")
@click.pass_context
def list_keys(ctx: click.Context, inventory_file: str, overrides: Mapping[str, Any], form: str) -> None:
    """List keys that are not revoked, with their limits and what they have used since HAProxy was started."""
    with _edges(inventory_file, overrides) as there:
        answers, complete = _answers(there, {"do": "read"})
    keys = key_records.of_edges(answers)
    for host, answer in answers.items():
        if answer["keys"] != keys or not answer["current"]:
            complete = False
            click.echo(
                f"{host}: has not every change; deploys/edge.py, or the next change of a key, brings it", err=True
            )
    rows = key_records.rows(keys, [answer["used"] for answer in answers.values()], int(time.time()))
    click.echo(json.dumps(rows, indent=2) if form == "json" else _table(rows))
    ctx.exit(0 if complete else 1)


def _edges(inventory_file: str, overrides: Mapping[str, Any]) -> Any:
    loaded = inventory_source.load(inventory_file, overrides)
    return connected(loaded, names={*inventory.edge_hosts(loaded)})


def _change(inventory_file: str, overrides: Mapping[str, Any], change: Change) -> bool:
    """Make a change on all edges; return whether each has it."""
    with _edges(inventory_file, overrides) as there:
        answers, _ = _answers(there, {"do": "read"})
        keys = key_records.of_edges(answers)
        served = sorted({model for answer in answers.values() for model in answer["models"]})
        changed = edge_keys.merged([change(keys, served), keys])
        _, complete = _answers(there, {"do": "write", "keys": changed})
        return complete


def _answers(there: Connected, request: Mapping[str, Any]) -> tuple[dict[str, Answer], bool]:
    """Return edge -> answer of those that gave one, and whether all did; the others are named.

    Raises:
        Refusal: none did.
    """
    hosts = reached(there.state).values()
    answers = each(hosts, lambda host: run_program(there.state, host, "edge_keys", request, seconds=_SECONDS))
    lost = {**there.unreached, **{host: answer["error"] for host, answer in answers.items() if "error" in answer}}
    good = {host: answer for host, answer in answers.items() if "error" not in answer}
    if not good:
        raise Refusal("\n".join(f"{host}: {why}" for host, why in lost.items()), needed="one edge that answers")
    for host, why in lost.items():
        click.echo(f"{host}: {why}", err=True)
    for host, answer in good.items():
        for note in answer["notes"]:
            click.echo(f"{host}: {note}", err=True)
    return good, not lost


def _table(rows: list[dict[str, Any]]) -> str:
    """Return the keys as lines of columns."""
    header = ("name", "models", "a minute", "at once", "until", "requests", "in", "out")
    return "\n".join(aligned([header, *map(_cells, rows)]))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    until = f"{datetime.fromtimestamp(row['expires'], timezone.utc):%Y-%m-%d}" if row["expires"] else "-"
    return (
        row["name"],
        ",".join(row["models"]),
        str(row["rate"] or "-"),
        str(row["concurrent"] or "-"),
        until + (" (expired)" if row["expired"] else ""),
        str(row["requests"]),
        size(row["bytes_in"]),
        size(row["bytes_out"]),
    )
