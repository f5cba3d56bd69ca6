"""The report as one HTML page that loads nothing from the network."""

from __future__ import annotations

import jinja2

from muster import resources
from muster.bench import report_charts, report_markdown
from muster.bench.report_data import Summary


def render(summary: Summary) -> str:
    """Return the whole page.

    Raises:
        Refusal: matplotlib is not installed.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.directory("templates")),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tables = [
        (f"Runs: {name}", report_markdown.RUN_COLUMNS, [report_markdown.run_cells(run) for run in runs])
        for name, runs in summary.series.items()
    ]
    return environment.get_template("report.html.j2").render(
        title=summary.title,
        hardware=sorted({run.hardware for run in summary.runs if run.hardware}),
        drivers=sorted({run.driver for run in summary.runs if run.driver}),
        first=min((run.at for run in summary.runs), default=""),
        last=max((run.at for run in summary.runs), default=""),
        count=len(summary.runs),
        sides=summary.sides,
        row_head=report_markdown.COMPARED_COLUMNS,
        rows=report_markdown.compared_cells(summary),
        published_head=report_markdown.PUBLISHED_COLUMNS,
        published=[report_markdown.published_cells(row) for row in summary.published],
        score_head=report_markdown.SCORE_COLUMNS,
        scores=report_markdown.score_cells(summary),
        charts=report_charts.draw(summary) if summary.runs else {},
        starts=report_markdown.start_cells(summary),
        tables=tables,
        failed=[(entry.id, entry.load_key, "; ".join(entry.problems)) for entry in summary.failed],
        broken=summary.broken,
    )
