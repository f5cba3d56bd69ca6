"""Charts as inline SVG, by matplotlib: colours that colour-blind readers can tell apart, a marker for each series."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from muster.bench import figures
from muster.bench.ledger import LedgerEntry
from muster.bench.report_data import Summary
from muster.errors import Refusal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette (2008) without its yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
PERCENTILES = tuple(f"p{percentile}" for percentile in figures.PERCENTILES)
STYLE = {
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's own font
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
}


def load_library() -> Any:
    """Return matplotlib without pyplot.

    Raises:
        Refusal: it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise Refusal(
            "matplotlib is not installed",
            needed="it for the figures of an HTML report",
            fix="pip install 'vllm-muster[report]', or write Markdown with --format markdown",
        ) from None
    return matplotlib


def draw(summary: Summary) -> dict[str, str]:
    """Return every chart that the runs have data for: heading -> SVG."""
    matplotlib = load_library()
    with matplotlib.rc_context(STYLE):
        charts = {
            "Throughput against latency": _sweeps(summary),
            "Percentiles of latency": _percentiles(summary),
            "Runs over time": _over_time(summary),
        }
    return {heading: svg for heading, svg in charts.items() if svg}


def style_of(names: Sequence[str], name: str) -> dict[str, Any]:
    """Return a series' colour, marker and line; the same in every chart."""
    at = list(names).index(name)
    return {
        "color": COLOURS[at % len(COLOURS)],
        "marker": MARKERS[at % len(MARKERS)],
        "linestyle": LINES[at % len(LINES)],
    }


def _sweeps(summary: Summary) -> str:
    """Draw each series' steps: throughput to the right, latency up, the number of prompts at each point."""
    steps = {name: _steps(runs) for name, runs in summary.series.items()}
    steps = {name: by_prompts for name, by_prompts in steps.items() if len(by_prompts) > 1}
    if not steps:
        return ""
    figure, axes = _panels(2)
    for axis, key in zip(axes, ("mean_ttft_ms", "mean_tpot_ms"), strict=True):
        for name, by_prompts in steps.items():
            points = [(prompts, runs) for prompts, runs in by_prompts.items() if all(key in r.figures for r in runs)]
            across = [mean(run.figures["output_throughput"] for run in runs) for _, runs in points]
            up = [mean(run.figures[key] for run in runs) for _, runs in points]
            axis.plot(across, up, label=name, **style_of(list(summary.series), name))
            for (prompts, _), x, y in zip(points, across, up, strict=True):
                axis.annotate(
                    str(prompts), (x, y), textcoords="offset points", xytext=(5, 5), fontsize=8, color="#444444"
                )
        axis.set_xlabel("output throughput, tok/s")
        axis.set_title(f"{figures.FIGURES[key].words}, ms", loc="left", fontsize=10)
        _from_zero(axis)
        axis.set_xlim(left=0)
    return _svg(figure, axes[0], "sweep")


def _steps(runs: Sequence[LedgerEntry]) -> dict[int, list[LedgerEntry]]:
    """Return the runs of the load and session with the most steps, by number of prompts; the last of equal ones."""
    loads: dict[tuple[str, str], dict[int, list[LedgerEntry]]] = {}
    for run in runs:
        load = run.load_key.rsplit(", ", 1)[0]
        loads.setdefault((load, run.session), {}).setdefault(run.prompts, []).append(run)
    most = max(reversed(loads.values()), key=len)
    return dict(sorted(most.items()))


def _percentiles(summary: Summary) -> str:
    """Draw TTFT and TPOT at four percentiles, for the last run of each series' largest load."""
    largest = {name: max(reversed(runs), key=lambda run: run.prompts) for name, runs in summary.series.items()}
    figure, axes = _panels(2)
    for axis, metric in zip(axes, ("ttft", "tpot"), strict=True):
        for name, run in largest.items():
            points = [(p, run.figures[f"{p}_{metric}_ms"]) for p in PERCENTILES if f"{p}_{metric}_ms" in run.figures]
            if points:
                axis.plot(*zip(*points, strict=True), label=name, **style_of(list(summary.series), name))
        axis.set_title(f"{metric.upper()}, ms", loc="left", fontsize=10)
        _from_zero(axis)
        axis.margins(x=0.08)
    if not any(axis.lines for axis in axes):
        return ""
    return _svg(figure, axes[0], "percentiles")


def _over_time(summary: Summary) -> str:
    """Draw each series' output throughput, run by run, relative to the first of its load."""
    loads: dict[tuple[str, str], list[LedgerEntry]] = {}
    for name, runs in summary.series.items():
        for run in runs:
            if "output_throughput" in run.figures:
                loads.setdefault((name, run.load_key), []).append(run)
    repeated = {key: runs for key, runs in loads.items() if len({run.at for run in runs}) > 1}
    if not repeated:
        return ""
    figure, axes = _panels(1)
    times = sorted({run.at for runs in repeated.values() for run in runs})
    labelled: set[str] = set()
    for (name, _), series in repeated.items():
        first = series[0].figures["output_throughput"] or 1
        up = [100 * run.figures["output_throughput"] / first for run in series]
        label = None if name in labelled else name
        axes[0].plot(
            [times.index(run.at) for run in series], up, label=label, alpha=0.8, **style_of(list(summary.series), name)
        )
        labelled.add(name)
    shown = list(range(0, len(times), max(1, len(times) // 8)))
    axes[0].set_xticks(shown, [times[at].replace("T", "\n").removesuffix("Z") for at in shown], fontsize=8)
    axes[0].set_title("output throughput, % of the first run of its load", loc="left", fontsize=10)
    _from_zero(axes[0])
    return _svg(figure, axes[0], "time")


def _from_zero(axis: Any) -> None:
    """Start an axis at 0 and leave room above the highest point."""
    highest = max((value for line in axis.lines for value in line.get_ydata()), default=1)
    axis.set_ylim(0, 1.12 * highest or 1)


def _panels(count: int) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure as New

    figure = New(figsize=(9.6, 3.9), layout="constrained")
    axes = figure.subplots(1, count)
    return figure, list(axes) if count > 1 else [axes]


def _svg(figure: Figure, keyed: Any, name: str) -> str:
    """Return a figure as an SVG element without prologue, the same bytes for the same data."""
    import matplotlib

    handles, labels = keyed.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=1, fontsize=9)
    out = io.StringIO()
    metadata: Mapping[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata=dict(metadata))
    text = out.getvalue()
    svg = text[text.index("<svg") :]
    return (
        svg.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
        .replace('id="', f'id="{name}-')
        .replace("url(#", f"url(#{name}-")
        .replace('href="#', f'href="#{name}-')
    )
