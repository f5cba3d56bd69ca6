"""`muster remove`: a group, or everything that muster made, taken off its hosts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from muster.commands import options
from muster.hosts.run_options import RunOptions


@click.command(
    epilog="""\b
Examples:
  muster remove inventories/h200-16.py kimi-k2-instruct --dry
  muster remove inventories/h200-16.py --group kimi-k2-instruct
  muster remove inventories/h200-16.py --everything

\b
Exit status: 0 done, 1 failed or a host is left, 2 refused and nothing
touched, 130 interrupted.
"""
)
@options.over_inventory()
@click.option("--everything", is_flag=True, help="All groups; engines, caches, tools, kernel settings, the user.")
@click.option("--weights", is_flag=True, help="With --everything: staged and downloaded weights as well.")
@options.over_run
def remove(
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    everything: bool,
    weights: bool,
    run: RunOptions,
) -> None:
    """Stop the group of RECIPE and take it off the hosts of INVENTORY, or everything that muster made there.

    What goes is shown with its bytes before anything is touched. Nothing of another group or another owner goes. RECIPE
    may be left out where the hosts have one group. A host that is off keeps nobody: it is named, and the same command
    takes care of it when it is back.
    """
    from muster.deploys import remove as removal
    from muster.hosts.deploy_run import run_deploy

    def work() -> None:
        group = overrides.get("group")
        removal.remove(everything=everything, weights=weights, group=group, recipe=recipe_name)

    sys.exit(run_deploy(inventory_file, overrides, work, run, recipe=recipe_name, edges=True))
