"""`muster eval`: score the group with GSM8K, by lm_eval on its head, and print the margin of error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from muster.bench import eval_task, ledger, regression_gate
from muster.bench.ledger import LedgerEntry
from muster.commands import options
from muster.errors import Refusal


@click.command(
    name="eval",
    epilog="""\b
Examples:
  muster eval inventories/h200-8.py kimi-k2-thinking --limit 100
  muster eval inventories/h200-8.py kimi-k2-thinking --strategy tp-dcp --data gsm8k_path=/srv/gsm8k
  muster eval inventories/h200-8.py kimi-k2-thinking --against 20261121T
""",
)
@options.over_inventory(strategy=True)
@click.option("--limit", type=click.IntRange(1), help="Questions to ask; all 1319 by default.")
@click.option("--fewshot", type=click.IntRange(0), help=f"Examples shown. [{eval_task.FEWSHOT}]")
@options.against
@options.ledger
@click.pass_context
def evaluate(
    ctx: click.Context,
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    limit: int | None,
    fewshot: int | None,
    against: str | None,
    ledger_path: Path,
) -> None:
    """Score the running RECIPE on INVENTORY with GSM8K, and say whether published scores agree.

    With --against it asks as many questions, with as many examples, as the newest kept evaluation there, and exits with
    1 when a score fell by more than chance explains.
    """
    from muster.bench import measured_group, run_eval  # pyinfra loads slowly

    kept = ledger.baseline(against, ledger.read(ledger_path)[0]) if against else []
    with measured_group.connected(inventory_file, recipe_name, overrides) as group:
        before = run_eval.comparable(kept, group.recipe.name)
        if against:
            limit, fewshot = _as_before(before, against, limit, fewshot)
        running = group.check()
        entry, scores = run_eval.evaluate(
            group,
            running,
            directory=ledger_path,
            limit=limit,
            fewshot=eval_task.FEWSHOT if fewshot is None else fewshot,
            say=lambda line: click.echo(f"  {line}", err=True),
        )
        run_eval.require(scores, entry)
        for score in scores:
            click.echo(run_eval.verdict(group, score))
    click.echo(f"kept in {ledger_path} as {entry.id}")
    if against:
        comparisons = regression_gate.compare(before, [entry], tolerance=0)
        for comparison in comparisons:
            click.echo(comparison.text)
        ctx.exit(any(comparison.regressed for comparison in comparisons))


def _as_before(kept: Sequence[LedgerEntry], against: str, limit: int | None, fewshot: int | None) -> tuple[int, int]:
    """Return the questions and examples of the newest kept evaluation with those that are asked for."""
    alike = [
        (entry.prompts, entry.load["fewshot"])
        for entry in kept
        if limit in (None, entry.prompts) and fewshot in (None, entry.load["fewshot"])
    ]
    if not alike:
        raise Refusal(
            f"the baseline '{against}' has no completed evaluation of this recipe with these questions and examples",
            needed="a kept run that this one can be held against",
            fix="leave --limit and --fewshot out, or name another baseline; muster eval without --against keeps one",
        )
    return alike[-1]
