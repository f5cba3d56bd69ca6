"""`muster eval`: score the group with GSM8K, by lm_eval on its head, and print the margin of error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from muster.bench import eval_task
from muster.commands import options


@click.command(
    name="eval",
    epilog="""\b
Examples:
  muster eval inventories/h200-8.py kimi-k2-thinking --limit 100
  muster eval inventories/h200-8.py kimi-k2-thinking --strategy tp-dcp --data gsm8k_path=/srv/gsm8k
""",
)
@options.over_inventory(strategy=True)
@click.option("--limit", type=click.IntRange(1), help="Questions to ask; all 1319 by default.")
@click.option("--fewshot", type=click.IntRange(0), default=eval_task.FEWSHOT, show_default=True, help="Examples shown.")
@options.ledger
def evaluate(
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    limit: int | None,
    fewshot: int,
    ledger_path: Path,
) -> None:
    """Score the running RECIPE on INVENTORY with GSM8K, and say whether published scores agree."""
    from muster.bench import measured_group, run_eval  # pyinfra loads slowly

    with measured_group.connected(inventory_file, recipe_name, overrides) as group:
        running = group.check()
        entry, scores = run_eval.evaluate(
            group,
            running,
            directory=ledger_path,
            limit=limit,
            fewshot=fewshot,
            say=lambda line: click.echo(f"  {line}", err=True),
        )
        run_eval.require(scores, entry)
        for score in scores:
            click.echo(run_eval.verdict(group, score))
    click.echo(f"kept in {ledger_path} as {entry.id}")
