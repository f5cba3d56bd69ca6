"""`muster eval`: GSM8K through lm_eval on a cluster host, with the margin that its size allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from muster.bench import eval_task
from muster.commands.bench import LEDGER
from muster.commands.plan import parse_data


@click.command(
    name="eval",
    epilog="""\b
Examples:
  muster eval inventories/h200-8.py kimi-k2-thinking --limit 100
  muster eval inventories/h200-8.py kimi-k2-thinking --strategy tp-dcp --data gsm8k_path=/srv/gsm8k
""",
)
@click.argument("inventory_file", metavar="INVENTORY", type=click.Path())
@click.argument("recipe_name", metavar="RECIPE")
@click.option("--limit", type=click.IntRange(1), help="Questions to ask, for a quick look; all 1319 otherwise.")
@click.option("--fewshot", type=click.IntRange(0), default=eval_task.FEWSHOT, show_default=True, help="Examples shown.")
@click.option("--ledger", "place", type=click.Path(path_type=Path), default=LEDGER, show_default=True)
@click.option("--strategy", help="tp, tp-dcp, tp-pp or dp-ep; the recipe's default for the GPUs otherwise.")
@click.option("--data", "pairs", multiple=True, metavar="K=V", help="A setting, as pyinfra's --data.")
def evaluate(
    inventory_file: str,
    recipe_name: str,
    limit: int | None,
    fewshot: int,
    place: Path,
    strategy: str | None,
    pairs: Sequence[str],
) -> None:
    """Score the running RECIPE on INVENTORY with GSM8K, and say whether published scores agree."""
    from muster.bench import (
        measured_group,  # pyinfra loads slowly
        run_eval,
    )

    overrides = parse_data(pairs) | ({"strategy": strategy} if strategy else {})
    with measured_group.connected(inventory_file, recipe_name, overrides) as group:
        seen = group.check()
        entry, scores = run_eval.evaluate(
            group,
            seen,
            directory=place,
            limit=limit,
            fewshot=fewshot,
            say=lambda line: click.echo(f"  {line}", err=True),
        )
        run_eval.require(scores, entry)
        for score in scores:
            click.echo(run_eval.verdict(group, score))
    click.echo(f"kept in {place} as {entry.id}")
