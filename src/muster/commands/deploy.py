"""`muster deploy`, `rollback`, `stop`, `restart`, `resume`, `stage`: what the scripts in deploys/ do, as commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from muster.commands import options
from muster.hosts.run_options import RunOptions

EXIT_STATUS = """\b
Exit status: 0 done, 1 failed, 2 refused and nothing touched, 130 interrupted.
"""


@click.command(
    epilog=f"""\b
Examples:
  muster deploy inventories/h200-16.py kimi-k2-instruct --dry --diff
  muster deploy inventories/h200-16.py kimi-k2-instruct
  muster deploy inventories/h200-16.py kimi-k2-instruct --data max_model_len=131072 -y
  muster deploy inventories/fleet.py --parallel 2
  muster deploy inventories/fleet.py --gate 20261121T --gate-eval 20261122T

{EXIT_STATUS}"""
)
@options.over_inventory(strategy=True)
@click.option("--parallel", type=click.IntRange(1), default=1, show_default=True, help="Groups changed at once.")
@click.option(
    "--gate",
    metavar="BASELINE",
    help="Measure each changed group of a fleet against these kept runs, as muster bench --against, before it is back.",
)
@click.option(
    "--gate-eval",
    metavar="BASELINE",
    help="Ask each changed group of a fleet GSM8K as these kept runs of muster eval did, before it is back.",
)
@options.ledger
@options.over_run
def deploy(
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    parallel: int,
    gate: str | None,
    gate_eval: str | None,
    ledger_path: Path,
    run: RunOptions,
) -> None:
    """Bring RECIPE up on the hosts of INVENTORY; a second run changes nothing and says so in one line.

    Without RECIPE: every group of INVENTORY that names its own, one after the other; each leaves the edge while it is
    changed, and the first that fails goes back and ends the run. The edge follows.

    Everything that can be checked is checked before what runs is stopped. Where a group that runs has to be restarted,
    you are asked first.
    """
    from muster.bench.roll_gate import gates
    from muster.deploys import roll

    asked = gates(gate, gate_eval, ledger_path)

    def work() -> None:
        roll.deploy(recipe_name, parallel, asked)

    _run(inventory_file, recipe_name, overrides, run, work, several=True, edges=True)


@click.command(epilog=EXIT_STATUS)
@options.over_inventory()
@options.over_run
def stop(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], run: RunOptions) -> None:
    """Stop the group of RECIPE; it stays stopped, through a reboot too, until `resume`, `restart` or `deploy`.

    Requests in flight get `drain_seconds` to finish. RECIPE may be left out where the hosts have one group.
    """
    from muster.deploys import stop_restart_resume

    _run(inventory_file, recipe_name, overrides, run, lambda: stop_restart_resume.stop(recipe_name), edges=True)


@click.command(epilog=EXIT_STATUS)
@options.over_inventory()
@options.over_run
def restart(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], run: RunOptions) -> None:
    """Restart the group of RECIPE as it was deployed, in its order, and wait until it is ready.

    A restart on purpose costs no restart budget. RECIPE may be left out where the hosts have one group.
    """
    from muster.deploys import stop_restart_resume

    _run(inventory_file, recipe_name, overrides, run, lambda: stop_restart_resume.restart(recipe_name), edges=True)


@click.command(epilog=EXIT_STATUS)
@options.over_inventory()
@options.over_run
def resume(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], run: RunOptions) -> None:
    """Start the group of RECIPE again: after `stop`, after *failed*, on a host that a fatal Xid has blocked.

    RECIPE may be left out where the hosts have one group.
    """
    from muster.deploys import stop_restart_resume

    _run(inventory_file, recipe_name, overrides, run, lambda: stop_restart_resume.resume(recipe_name))


@click.command(
    epilog=f"""\b
Examples:
  muster rollback inventories/h200-16.py kimi-k2-instruct
  muster rollback inventories/h200-16.py kimi-k2-instruct 3f2a -y
  muster rollback inventories/fleet.py --group kimi-a 3f2a

{EXIT_STATUS}"""
)
@options.over_inventory()
@click.argument("plan", metavar="[PLAN]", default="")
@options.over_run
def rollback(
    inventory_file: str, recipe_name: str | None, plan: str, overrides: Mapping[str, Any], run: RunOptions
) -> None:
    """Put PLAN back on the hosts, start it and verify it; nothing is downloaded or built.

    PLAN is a digest of `muster history`, or how it begins. Without it, the newest plan that is not on the hosts is
    taken.
    """
    from muster.deploys import rollback as deploy_rollback

    recipe, plans = options.recipe_and_plans(recipe_name, plan, overrides=overrides)
    digest = next(iter(plans), "")
    _run(inventory_file, recipe, overrides, run, lambda: deploy_rollback.rollback(digest, recipe), edges=True)


@click.command(epilog=EXIT_STATUS)
@options.over_inventory()
@options.over_run
def stage(inventory_file: str, recipe_name: str | None, overrides: Mapping[str, Any], run: RunOptions) -> None:
    """Bring the pinned weights of RECIPE to every host of its group, verified; what runs is not touched."""
    from muster.deploys.stage_weights import stage_only

    _run(inventory_file, recipe_name, overrides, run, lambda: stage_only(recipe_name))


def _run(
    inventory_file: str,
    recipe: str | None,
    overrides: Mapping[str, Any],
    run: RunOptions,
    work: Callable[[], None],
    *,
    several: bool = False,
    edges: bool = False,
) -> None:
    """Run a deploy through pyinfra, and end with its exit status."""
    from muster.hosts.deploy_run import run_deploy

    sys.exit(run_deploy(inventory_file, overrides, work, run, recipe=recipe, several=several, edges=edges))
