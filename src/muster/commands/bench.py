"""`muster bench`: run the recipe's scenarios on the head, keep them in the ledger, compare them with a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from muster.bench import ledger, regression_gate, scenario
from muster.bench.ledger import LedgerEntry
from muster.commands import options

REPEATS = 3


class Percent(click.ParamType[float]):
    """A relative change: `5%` or `0.05`."""

    name = "PERCENT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share, 0 to 1."""
        text = str(value)
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{text} is not a share; write 5% or 0.05", param, ctx)
        if not 0 <= share < 1:
            self.fail(f"{text} is not a share from 0 to 100 %; write 5% or 0.05", param, ctx)
        return share


@click.command(
    epilog="""\b
Examples:
  muster bench inventories/h200-8.py kimi-k2-thinking
  muster bench inventories/h200-16.py kimi-k2-instruct --scenario h200 --sweep
  muster bench inventories/h200-8.py kimi-k2-thinking --against 20261121T --tolerance 5%
"""
)
@options.over_inventory(strategy=True)
@click.option(
    "--scenario", "names", multiple=True, help="A scenario of the recipe; that of the hosts' GPUs by default."
)
@click.option("--sweep", is_flag=True, help="Step through the scenario's numbers of prompts.")
@click.option("--repeat", type=click.IntRange(1, 100), help=f"Runs of each step. [1; {REPEATS} with --against]")
@options.against
@click.option("--tolerance", type=Percent(), default="5%", show_default=True, help="Change that is always accepted.")
@options.ledger
@click.option("--seconds", type=click.IntRange(10), default=14400, show_default=True, help="Limit of one run.")
@click.pass_context
def bench(
    ctx: click.Context,
    inventory_file: str,
    recipe_name: str | None,
    overrides: Mapping[str, Any],
    names: Sequence[str],
    sweep: bool,
    repeat: int | None,
    against: str | None,
    tolerance: float,
    ledger_path: Path,
    seconds: int,
) -> None:
    """Measure the running RECIPE on INVENTORY with `vllm bench serve` on its head.

    Exits with 1 when a run failed or, with --against, when a figure got worse by more than the tolerance and by more
    than repeated runs differ.
    """
    from muster.bench import measured_group, run_scenarios  # pyinfra loads slowly

    before = ledger.baseline(against, ledger.read(ledger_path)[0]) if against else []
    with measured_group.connected(inventory_file, recipe_name, overrides) as group:
        picked = scenario.pick(group.recipe, names, gpu=group.plan.head.gpu)
        for load in picked:
            load.prompts(sweep=sweep)  # refused before any host is asked
        scenario.require_served(picked, group.plan.memory.needed_tokens if group.plan.memory else None)
        running = group.check()
        scenario.require_served(picked, running.log.concurrency[0] if running.log.concurrency else None)
        click.echo(_heading(group.plan.label, group.plan.digest, running.hardware, running.log.tokens))
        runs = []
        for entry in run_scenarios.measure(
            group,
            running,
            picked,
            directory=ledger_path,
            sweep=sweep,
            repeat=repeat or (REPEATS if against else 1),
            seconds=seconds,
            say=lambda line: click.echo(f"  {line}", err=True),
        ):
            click.echo(summary(entry))
            runs.append(entry)
    failed = [entry for entry in runs if entry.problems]
    click.echo(f"{len(runs)} runs kept in {ledger_path} as session {runs[0].session}")
    worse = _print_comparison(before, runs, tolerance) if before and len(failed) < len(runs) else False
    ctx.exit(1 if failed or worse else 0)


def _heading(label: str, digest: str, hardware: str, tokens: int | None) -> str:
    cache = f" · KV cache {tokens:,} tokens" if tokens else ""
    return f"{label} · plan {digest} · {hardware}{cache}"


def summary(entry: LedgerEntry) -> str:
    """Return one run as a line."""
    if entry.problems:
        return f"FAILED {entry.load_key}: {'; '.join(entry.problems)}"
    parts = [f"{entry.figures[key]:,.2f} {unit}" for key, unit in _THROUGHPUTS if key in entry.figures]
    latencies = _LATENCIES if "mean_ttft_ms" in entry.figures else _WHOLE
    parts += [f"{word} {entry.figures[key]:,.1f} ms" for key, word in latencies if key in entry.figures]
    return f"{entry.load_key}: " + ", ".join(parts)


_THROUGHPUTS = (("request_throughput", "req/s"), ("output_throughput", "tok/s"))
_WHOLE = (("mean_e2el_ms", "answered in"), ("p99_e2el_ms", "p99"))
"""Of requests that generate nothing."""
_LATENCIES = (("mean_ttft_ms", "TTFT"), ("p99_ttft_ms", "p99"), ("mean_tpot_ms", "TPOT"), ("p99_tpot_ms", "p99"))


def _print_comparison(before: Sequence[LedgerEntry], runs: Sequence[LedgerEntry], tolerance: float) -> bool:
    comparisons = regression_gate.compare(before, runs, tolerance=tolerance)
    for comparison in comparisons:
        click.echo(comparison.text)
    worse = [comparison for comparison in comparisons if comparison.regressed]
    click.echo(
        f"{len(worse)} of {len(comparisons)} figures got worse by more than {tolerance:.0%} and the spread of runs"
    )
    return bool(worse)
