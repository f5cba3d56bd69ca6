"""`muster diff`: what differs between two verified plans that the hosts keep."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from muster.commands import options
from muster.errors import Refusal
from muster.plan import plan_history
from muster.plan.plan_diff import differences


@click.command(
    epilog="""\b
Examples:
  muster diff inventories/h200-16.py kimi-k2-instruct 3f2a 91bc
  muster diff inventories/h200-16.py kimi-k2-instruct 3f2a    the newest against it
  muster diff inventories/fleet.py --group kimi-a 3f2a 91bc

\b
Exit status: 0 no difference, 1 they differ, 2 wrong input or a host that does not answer.
"""
)
@options.over_inventory()
@click.argument("old", metavar="PLAN", required=False)
@click.argument("new", metavar="[PLAN]", required=False)
def diff(
    inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], old: str | None, new: str | None
) -> None:
    """Show how the second PLAN differs from the first: settings, command lines by flag, secrets by digest, files.

    A PLAN is a digest of `muster history`, or how it begins. Without the second one, the newest is compared.
    """
    from muster.status.ask_guards import Guards, guards_of

    recipe, plans = options.recipe_and_plans(recipe_name, old, new, overrides=overrides)
    if not plans:
        raise Refusal("no PLAN", needed="a digest of muster history, or how it begins", fix="name one after the RECIPE")

    def read(guards: Guards, digest: str) -> dict[str, Any]:
        return {host: answer["plan"] for host, answer in answered(guards.kept_plans("read", digest=digest)).items()}

    with guards_of(inventory_file, recipe, overrides) as guards:
        kept = answered(guards.kept_plans("list"))
        history = plan_history.history({host: answer["plans"] for host, answer in kept.items()})
        one, other = plan_history.named(history, plans[0]), plan_history.named(history, (*plans[1:], "")[0])
        lines = differences(read(guards, one.digest), read(guards, other.digest))
    click.echo(f"{one.digest} ({one.verified}) -> {other.digest} ({other.verified})")
    if not lines:
        click.echo("nothing differs: settings, command lines, secrets and files are the same")
    for line in lines:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        click.secho(line, fg=colour)
    sys.exit(1 if lines else 0)


def answered(answers: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Return the answers of all hosts.

    Raises:
        Refusal: some host gave none.
    """
    for host, answer in answers.items():
        if "error" in answer:
            raise Refusal(f"{host}: {answer['error']}", needed="the plan as every host keeps it")
    return answers
