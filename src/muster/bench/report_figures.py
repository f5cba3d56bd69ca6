"""Figures as inline SVG, by matplotlib: colours that colour-blind people tell apart, and a marker for each series."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from muster.bench.ledger import Entry
from muster.bench.report_data import Summary
from muster.errors import Refusal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette (2008) without its yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
PERCENTILES = ("p50", "p90", "p95", "p99")
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
    """Return matplotlib's pyplot-free parts.

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


def drawings(summary: Summary) -> dict[str, str]:
    """Return every figure that the runs have data for: heading -> SVG."""
    matplotlib = load_library()
    with matplotlib.rc_context(STYLE):
        made = {
            "Throughput against latency": _sweeps(summary),
            "Percentiles of latency": _percentiles(summary),
            "Runs over time": _over_time(summary),
        }
    return {heading: svg for heading, svg in made.items() if svg}


def style_of(names: Sequence[str], name: str) -> dict[str, Any]:
    """Return colour, marker and line of a series; the same in every figure."""
    at = list(names).index(name)
    return {
        "color": COLOURS[at % len(COLOURS)],
        "marker": MARKERS[at % len(MARKERS)],
        "linestyle": LINES[at % len(LINES)],
    }


def _sweeps(summary: Summary) -> str:
    """Draw each series' steps: throughput to the right, latency up, the number of prompts at each point."""
    steps = {name: _steps(runs) for name, runs in summary.series.items()}
    steps = {name: found for name, found in steps.items() if len(found) > 1}
    if not steps:
        return ""
    figure, axes = _panels(2)
    for axis, figures in zip(axes, (("mean_ttft_ms", "mean TTFT, ms"), ("mean_tpot_ms", "mean TPOT, ms")), strict=True):
        for name, found in steps.items():
            told = [(prompts, runs) for prompts, runs in found.items() if all(figures[0] in r.figures for r in runs)]
            across = [mean(run.figures["output_throughput"] for run in runs) for _, runs in told]
            up = [mean(run.figures[figures[0]] for run in runs) for _, runs in told]
            axis.plot(across, up, label=name, **style_of(list(summary.series), name))
            for (prompts, _), x, y in zip(told, across, up, strict=True):
                axis.annotate(
                    str(prompts), (x, y), textcoords="offset points", xytext=(5, 5), fontsize=8, color="#444444"
                )
        axis.set_xlabel("output throughput, tok/s")
        axis.set_title(figures[1], loc="left", fontsize=10)
        _from_zero(axis)
        axis.set_xlim(left=0)
    return _svg(figure, axes[0], "sweep")


def _steps(runs: Sequence[Entry]) -> dict[int, list[Entry]]:
    """Return the runs of the load that has most steps, by number of prompts."""
    loads: dict[str, dict[int, list[Entry]]] = {}
    for run in runs:
        load = run.load_key.rsplit(", ", 1)[0]
        loads.setdefault(load, {}).setdefault(run.prompts, []).append(run)
    most = max(loads.values(), key=len)
    return dict(sorted(most.items()))


def _percentiles(summary: Summary) -> str:
    """Draw TTFT and TPOT at four percentiles, for each series' largest load."""
    largest = {name: max(runs, key=lambda run: run.prompts) for name, runs in summary.series.items()}
    figure, axes = _panels(2)
    for axis, metric in zip(axes, ("ttft", "tpot"), strict=True):
        for name, run in largest.items():
            found = [(p, run.figures[f"{p}_{metric}_ms"]) for p in PERCENTILES if f"{p}_{metric}_ms" in run.figures]
            if found:
                places, values = zip(*found, strict=True)
                axis.plot(places, values, label=name, **style_of(list(summary.series), name))
        axis.set_title(f"{metric.upper()}, ms", loc="left", fontsize=10)
        _from_zero(axis)
        axis.margins(x=0.08)
    if not any(axis.lines for axis in axes):
        return ""
    return _svg(figure, axes[0], "percentiles")


def _over_time(summary: Summary) -> str:
    """Draw each series' output throughput, run by run, relative to the first of its load."""
    loads: dict[tuple[str, str], list[Entry]] = {}
    for name, runs in summary.series.items():
        for run in runs:
            loads.setdefault((name, run.load_key), []).append(run)
    repeated = {key: runs for key, runs in loads.items() if len({run.at for run in runs}) > 1}
    if not repeated:
        return ""
    figure, axes = _panels(1)
    times = sorted({run.at for runs in repeated.values() for run in runs})
    labelled: set[str] = set()
    for (name, _), told in repeated.items():
        first = told[0].figures["output_throughput"] or 1
        up = [100 * run.figures["output_throughput"] / first for run in told]
        label = None if name in labelled else name
        axes[0].plot(
            [times.index(run.at) for run in told], up, label=label, alpha=0.8, **style_of(list(summary.series), name)
        )
        labelled.add(name)
    shown = list(range(0, len(times), max(1, len(times) // 8)))
    axes[0].set_xticks(shown, [times[at].replace("T", "\n").removesuffix("Z") for at in shown], fontsize=8)
    axes[0].set_title("output throughput, % of the first run of its load", loc="left", fontsize=10)
    _from_zero(axes[0])
    return _svg(figure, axes[0], "time")


def _from_zero(axis: Any) -> None:
    """Let an axis begin at 0, with room above the highest point."""
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
