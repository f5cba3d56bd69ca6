"""The report as one HTML page that asks nothing of the network."""

from __future__ import annotations

import jinja2

from muster import resources
from muster.report import figures, markdown
from muster.report.summary import Summary


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
        (f"Runs: {name}", markdown.RUN_HEAD, [markdown.run_cells(run) for run in runs])
        for name, runs in summary.series.items()
    ]
    compared = markdown.compared_cells(summary)
    return environment.get_template("report.html.j2").render(
        title=summary.title,
        hardware=sorted({run.hardware for run in summary.runs if run.hardware}),
        drivers=sorted({run.driver for run in summary.runs if run.driver}),
        first=min((run.at for run in summary.runs), default=""),
        last=max((run.at for run in summary.runs), default=""),
        count=len(summary.runs),
        sides=summary.sides,
        row_head=markdown.ROW_HEAD,
        rows=compared,
        published_head=markdown.PUBLISHED_HEAD,
        published=[markdown.published_cells(row) for row in summary.published],
        score_head=markdown.SCORE_HEAD,
        scores=markdown.score_cells(summary),
        figures=figures.drawings(summary) if summary.runs else {},
        starts=markdown.start_cells(summary),
        tables=tables,
        failed=[(entry.id, entry.load_key, "; ".join(entry.problems)) for entry in summary.failed],
        broken=summary.broken,
    )
