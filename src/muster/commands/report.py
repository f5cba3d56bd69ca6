"""`muster report`: the ledger as one HTML page or as Markdown."""

from __future__ import annotations

from pathlib import Path

import click

from muster.bench import ledger, report_data, report_markdown
from muster.commands.bench import LEDGER
from muster.spec import recipe


@click.command(
    epilog="""\b
Examples:
  muster report --recipe kimi-k2-thinking --out report.html
  muster report --format markdown
  muster report --compare TP8 TP8+DCP8 --recipe kimi-k2-thinking --out dcp.html
"""
)
@click.option("--ledger", "place", type=click.Path(path_type=Path), default=LEDGER, show_default=True)
@click.option("--recipe", "recipe_name", help="Puts the figures that its authors published beside the measured ones.")
@click.option("--compare", nargs=2, metavar="A B", help="Shapes, sessions, plan digests or releases; A is the base.")
@click.option("--format", "kind", type=click.Choice(["html", "markdown"]), help="[html with --out *.html]")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write; standard output otherwise."
)
def report(
    place: Path, recipe_name: str | None, compare: tuple[str, str] | None, kind: str | None, out: Path | None
) -> None:
    """Render the ledger: sweeps, percentiles, runs over time, and a comparison of two shapes or releases."""
    entries, broken = ledger.read(place) if place.exists() else ([], [])
    wanted = recipe.load(recipe_name) if recipe_name else None
    told = report_data.summarize(entries, wanted, compare=compare or (), broken=broken)
    if (kind or ("html" if out and out.suffix == ".html" else "markdown")) == "html":
        from muster.bench import report_page  # matplotlib loads slowly, and is an extra

        text = report_page.render(told)
    else:
        text = report_markdown.render(told)
    if out:
        out.write_text(text, encoding="utf-8")
        click.echo(f"{len(told.runs)} runs in {out}", err=True)
    else:
        click.echo(text)
