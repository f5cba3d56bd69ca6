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
from muster.spec import inventory

if TYPE_CHECKING:
    from pyinfra.api import State
    from pyinfra.api.inventory import Inventory

    from muster.plan.types import Plan
    from muster.spec.inventory import Fleet

EPILOG = "Exit status: 0 all well, 3 a check warns, 1 a check fails, 2 wrong input."


@click.command(epilog=EPILOG)
@over_inventory(recipe=False)
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
    """Check the hosts of INVENTORY, against what RECIPE needs when one is named; changes nothing on any host."""
    from muster.hosts import all_hosts
    from muster.preflight import plan_needs, run_checks

    loaded = inventory.load(inventory_file, overrides)
    fleet = inventory.from_pyinfra(loaded, name=inventory_file)
    settings = fleet.settings.having(preflight_waive=[*fleet.settings.preflight.waive, *waive])
    settings = settings if pairs is None else settings.having(preflight_pairs=pairs)
    # Whatever can be refused is refused before any host is asked.
    plan = None if recipe_name is None else plan_for(recipe_name, fleet)
    needs = {h.name: plan_needs.needs_of_host(h, settings, len(fleet.hosts)) for h in fleet.hosts}
    state = _state(loaded)
    unreached = all_hosts.connect(state)
    try:
        title = f"preflight of {inventory_file}"
        if recipe_name is None or plan is None:
            found = run_checks.preflight(state, needs, settings, title=title, unreached=unreached)
        else:
            title += f" for {plan.recipe} as {plan.label}"
            replan = _replan(recipe_name, fleet)
            found = run_checks.run_recipe(state, plan, replan, settings, title=title, unreached=unreached)
    finally:
        _disconnect(state)
    _answer(found, form)


@click.command(epilog="Exit status: 0 no drift, 1 drift, 2 wrong input.")
@over_inventory()
@output_format("table", "json")
def drift(inventory_file: str, recipe_name: str, overrides: Mapping[str, Any], form: str) -> None:
    """Compare the hosts of INVENTORY with each other and with RECIPE's plan; changes nothing on any host."""
    from muster.hosts import all_hosts
    from muster.preflight import run_checks

    loaded = inventory.load(inventory_file, overrides)
    fleet = inventory.from_pyinfra(loaded, name=inventory_file)
    plan = plan_for(recipe_name, fleet)  # refused before anybody is asked
    state = _state(loaded)
    unreached = all_hosts.connect(state)
    try:
        found = run_checks.run_drift(state, plan, _replan(recipe_name, fleet), fleet.settings, unreached)
    finally:
        _disconnect(state)
    _print(found, form)
    sys.exit(0 if found.level == "ok" else 1)


def _replan(recipe_name: str, fleet: Fleet) -> Callable[[str], Plan]:
    return lambda variant: plan_for(recipe_name, fleet, variant)


def _state(loaded: Inventory) -> State:
    """Return pyinfra's state over an inventory, set up as its own command does."""
    # Loading the inventory has imported pyinfra's own command, which patches the standard library for gevent.
    from pyinfra.api import Config, State
    from pyinfra.context import ctx_state

    state = State(loaded, Config())
    ctx_state.set(state)
    return state


def _disconnect(state: State) -> None:
    from pyinfra.api.connect import disconnect_all

    disconnect_all(state)


def _answer(found: Outcome, form: str) -> None:
    _print(found, form)
    sys.exit(found.exit_status)


def _print(found: Outcome, form: str) -> None:
    if form == "json":
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        render(found, console_on(sys.stdout))
