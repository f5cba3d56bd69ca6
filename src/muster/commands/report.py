"""`muster report`: the ledger as one HTML page or as Markdown."""

from __future__ import annotations

from pathlib import Path

import click

from muster.bench import ledger, report_data, report_markdown
from muster.commands import options
from muster.spec import recipe


@click.command(
    epilog="""\b
Examples:
  muster report --recipe kimi-k2-thinking --out report.html
  muster report --format markdown
  muster report --compare TP8 TP8+DCP8 --recipe kimi-k2-thinking --out dcp.html
"""
)
@options.ledger
@click.option("--recipe", "recipe_name", help="Puts the figures that its authors published beside the measured ones.")
@click.option("--compare", nargs=2, metavar="A B", help="Shapes, sessions, plan digests or releases; A is the base.")
@click.option("--format", "form", type=click.Choice(["html", "markdown"]), help="[html with --out *.html]")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write; standard output otherwise."
)
def report(
    ledger_path: Path, recipe_name: str | None, compare: tuple[str, str] | None, form: str | None, out: Path | None
) -> None:
    """Render the ledger: sweeps, percentiles, runs over time, and a comparison of two shapes or releases."""
    entries, broken = ledger.read(ledger_path) if ledger_path.exists() else ([], [])
    published = recipe.load(recipe_name) if recipe_name else None
    summary = report_data.summarize(entries, published, compare=compare or (), broken=broken)
    if (form or ("html" if out and out.suffix == ".html" else "markdown")) == "html":
        from muster.bench import report_page  # matplotlib loads slowly, and is an extra

        text = report_page.render(summary)
    else:
        text = report_markdown.render(summary)
    if out:
        out.write_text(text, encoding="utf-8")
        click.echo(f"{len(summary.runs)} runs in {out}", err=True)
    else:
        click.echo(text)
