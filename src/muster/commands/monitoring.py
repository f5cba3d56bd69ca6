"""`muster monitoring`: what a Prometheus needs to watch a group, written as plain files with no host in reach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from muster.commands import options
from muster.monitoring import configuration, grafana
from muster.plan.prepare import plan_for
from muster.spec import inventory


@click.command(
    epilog="""\b
Examples:
  muster monitoring inventories/h200-16.py kimi-k2-instruct --out prometheus
  promtool check config prometheus/prometheus.yml
  pyinfra inventories/mine.py deploys/monitoring.py --data _recipe=kimi-k2-instruct
"""
)
@options.over_inventory(strategy=True)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory of the files.")
def monitoring(inventory_file: str, recipe_name: str, overrides: Mapping[str, Any], out: Path) -> None:
    """Write what a Prometheus of your own needs to watch the group of RECIPE on INVENTORY's hosts: targets, alerts,
    configuration.

    Paths are those below /etc/prometheus; those in grafana/ are below /etc/grafana. Where prometheus.yml is yours
    already, take its scrape_configs and rule_files into it. Of several groups, write all into one directory.
    deploys/monitoring.py installs the same on a host.
    """
    fleet = inventory.from_path(inventory_file, overrides)
    plan = plan_for(recipe_name, fleet)
    files = configuration.files(plan, fleet.settings, configuration.keyed_groups(_names(out)))
    files |= {f"grafana/{path}": text for path, text in grafana.files().items()}
    for path, text in files.items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    click.echo(f"{len(files)} files under {out}", err=True)
    if plan.api_key_path:
        click.echo(f"the engine asks for the API key: put it, alone, into {out / configuration.key_path(plan.group)}")


def _names(out: Path) -> list[str]:
    """Return the files that name targets and are there already, of other groups too."""
    return [path.name for path in out.glob(configuration.target_path("*", "*"))]
