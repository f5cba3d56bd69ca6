"""`muster preflight` and `muster drift`: what is wrong with hosts, and what has moved away from the plan."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from muster.commands.options import output_format, over_inventory
from muster.plan.prepare import plan_for
from muster.preflight.outcome import Outcome
from muster.preflight.table import console_on, render
from muster.spec import inventory, inventory_source

if TYPE_CHECKING:
    from muster.plan.types import Plan
    from muster.spec.inventory import Fleet

EPILOG = "Exit status: 0 all well, 3 a check warns, 1 a check fails, 2 wrong input."


@click.command(epilog=EPILOG)
@over_inventory()
@output_format("table", "json")
@click.option("--waive", multiple=True, metavar="CHECK", help="A check that stops nothing; may be repeated.")
@click.option("--pairs/--no-pairs", default=None, help="Measure the fabric between each two hosts, or not.")
def preflight(
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    form: str,
    waive: Sequence[str],
    pairs: bool | None,
) -> None:
    """Check the hosts of INVENTORY, against what RECIPE needs when one is named or the group has one; changes nothing
    on any host."""
    from muster.hosts.connect import connected
    from muster.preflight import plan_needs, run_checks

    loaded = inventory_source.load(inventory_file, overrides)
    fleet = inventory.from_pyinfra(loaded, name=inventory_file, recipe=recipe_name)
    settings = fleet.settings.having(preflight_waive=[*fleet.settings.preflight.waive, *waive])
    settings = settings if pairs is None else settings.having(preflight_pairs=pairs)
    # Whatever can be refused is refused before any host is asked.
    recipe = recipe_name or fleet.settings.recipe
    plan = plan_for(recipe, fleet) if recipe else None
    needs = {h.name: plan_needs.needs_of_host(h, settings, len(fleet.hosts)) for h in fleet.hosts}
    with connected(loaded, names=needs.keys()) as there:
        title = f"preflight of {inventory_file}"
        if not recipe or plan is None:
            found = run_checks.preflight(there.state, needs, settings, title=title, unreached=there.unreached)
        else:
            title += f" for {plan.recipe} as {plan.label}"
            replan = _replan(recipe, fleet)
            found = run_checks.run_recipe(there.state, plan, replan, settings, title=title, unreached=there.unreached)
    _answer(found, form)


@click.command(epilog="Exit status: 0 no drift, 1 drift, 2 wrong input.")
@over_inventory()
@output_format("table", "json")
def drift(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], form: str) -> None:
    """Compare the hosts of INVENTORY with each other and with RECIPE's plan; changes nothing on any host."""
    from muster.hosts.connect import connected
    from muster.preflight import run_checks

    loaded = inventory_source.load(inventory_file, overrides)
    fleet = inventory.from_pyinfra(loaded, name=inventory_file, recipe=recipe_name)
    recipe = inventory.recipe_of(recipe_name, fleet)
    plan = plan_for(recipe, fleet)  # refused before anybody is asked
    with connected(loaded, names=plan.hosts.keys()) as there:
        found = run_checks.run_drift(there.state, plan, _replan(recipe, fleet), fleet.settings, there.unreached)
    _print(found, form)
    sys.exit(0 if found.level == "ok" else 1)


def _replan(recipe_name: str, fleet: Fleet) -> Callable[[str], Plan]:
    return lambda variant: plan_for(recipe_name, fleet, variant)


def _answer(found: Outcome, form: str) -> None:
    _print(found, form)
    sys.exit(found.exit_status)


def _print(found: Outcome, form: str) -> None:
    if form == "json":
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        render(found, console_on(sys.stdout))
