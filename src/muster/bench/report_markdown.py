"""The report as Markdown tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from muster.bench.ledger import LedgerEntry
from muster.bench.report_data import ComparedRow, PublishedRow, Summary

RUN_COLUMNS = ("date", "session", "plan", "load", "req/s", "tok/s", "TTFT mean", "TTFT p99", "TPOT mean", "TPOT p99")
RUN_FIGURES = (
    "request_throughput",
    "output_throughput",
    "mean_ttft_ms",
    "p99_ttft_ms",
    "mean_tpot_ms",
    "p99_tpot_ms",
)


def number(value: float | None, unit: str = "") -> str:
    """Return a figure for reading: thousands separated, four digits at most after rounding."""
    if value is None:
        return "-"
    text = f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,.4g}"
    return f"{text} {unit}".rstrip()


def change(value: float | None) -> str:
    """Return a relative change in percent, signed."""
    return "-" if value is None else f"{value:+.1%}".replace("%", " %")


def render(summary: Summary) -> str:
    """Return the whole report."""
    parts = [f"# {summary.title}", ""]
    for name, runs in summary.series.items():
        parts += [f"## {name}", "", *table(RUN_COLUMNS, [run_cells(run) for run in runs]), ""]
    if summary.rows:
        heading = f"## {summary.sides[0]} -> {summary.sides[1]}"
        parts += [heading, "", *table(COMPARED_COLUMNS, compared_cells(summary)), ""]
    if summary.published:
        parts += ["## Published by the recipe's authors, beside what was measured here", ""]
        parts += [*table(PUBLISHED_COLUMNS, [published_cells(row) for row in summary.published]), ""]
    if summary.scores:
        parts += ["## Evaluations", "", *table(SCORE_COLUMNS, score_cells(summary)), ""]
    if summary.starts:
        parts += ["## Engine start", "", *table(("shape", "what", "value"), start_cells(summary)), ""]
    if summary.failed or summary.broken:
        parts += ["## Runs that do not count", ""]
        parts += [f"- {entry.id}, {entry.load_key}: {'; '.join(entry.problems)}" for entry in summary.failed]
        parts += [f"- unreadable: {line}" for line in summary.broken]
        parts.append("")
    return "\n".join(parts)


COMPARED_COLUMNS = ("load", "sessions", "figure", "before", "now", "change", "repeats explain")
PUBLISHED_COLUMNS = ("figure (published)", "hardware", "shapes", "published", "change", "measured here", "change")
SCORE_COLUMNS = ("shape", "score", "measured", "95 %", "questions", "published", "hardware")


def run_cells(run: LedgerEntry) -> list[str]:
    """Return a run's cells under RUN_COLUMNS; latencies in ms."""
    return [
        run.at[:16].replace("T", " "),
        run.session,
        run.digest,
        run.load_key,
        *(number(run.figures.get(name), "ms" if name.endswith("_ms") else "") for name in RUN_FIGURES),
    ]


def compared_cells(summary: Summary) -> list[list[str]]:
    """Return the comparison's cells under COMPARED_COLUMNS; each load is named once, before its figures."""
    cells = [_row_cells(row) for row in summary.rows]
    loads = [row.load for row in summary.rows]
    again = [at > 0 and loads[at - 1] == load for at, load in enumerate(loads)]
    return [["", "", *row[2:]] if repeated else row for row, repeated in zip(cells, again, strict=True)]


def _row_cells(row: ComparedRow) -> list[str]:
    better = "" if not row.change else (" better" if row.better else " worse")
    spread = "not repeated" if row.spread is None else f"± {row.spread:.1%}".replace("%", " %")
    before, now = number(row.before, row.unit), number(row.now, row.unit)
    return [row.load, " -> ".join(row.sessions), row.name, before, now, change(row.change) + better, spread]


def published_cells(row: PublishedRow) -> list[str]:
    """Return a published figure's cells under PUBLISHED_COLUMNS."""
    before, now = row.published
    here = " -> ".join(number(value) for value in row.measured) if any(v is not None for v in row.measured) else "-"
    return [
        f"{row.name}, {row.unit}" if row.unit else row.name,
        row.hardware,
        " -> ".join(row.strategies),
        f"{_exact(before)} -> {_exact(now)}",
        change(row.change),
        here,
        change(row.measured_change),
    ]


def _exact(value: float) -> str:
    """Return a published figure with all its digits."""
    return f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:,}"


def score_cells(summary: Summary) -> list[list[str]]:
    """Return the evaluations' cells under SCORE_COLUMNS."""
    return [
        [
            score.series,
            score.name,
            f"{score.value:.4f}",
            f"± {score.margin:.4f}",
            f"{score.questions:,}",
            f"{score.published:.4f}" if score.published is not None else "-",
            score.hardware,
        ]
        for score in summary.scores
    ]


def start_cells(summary: Summary) -> list[list[str]]:
    """Return each engine's start as it logged it: cache, memory and phases."""
    cells = []
    for name, run in summary.starts:
        engine = run.engine
        if engine.get("cache_tokens"):
            cells.append([name, "KV cache per rank", f"{min(engine['cache_tokens']):,} tokens"])
        if engine.get("weights_gib") is not None:
            cells.append([name, "weights per GPU", f"{engine['weights_gib']:g} GiB"])
        if engine.get("seconds") is not None:
            cells.append([name, "start to endpoint", f"{engine['seconds']:.0f} s"])
        cells += [[name, f"of that: {phase}", f"{took:.1f} s"] for phase, took in engine.get("phases", {}).items()]
    return cells


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
