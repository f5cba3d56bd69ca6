"""A report as data: runs grouped into series and loads, compared, beside published figures. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from muster.bench import regression_gate
from muster.bench.eval_result import WIDTH
from muster.bench.figures import FIGURES
from muster.bench.ledger import LedgerEntry
from muster.errors import Refusal
from muster.spec.recipe import Published, Recipe

# Published metric -> key in the ledger, factor from the ledger's unit to the published one.
PUBLISHED: Mapping[str, tuple[str, float]] = {
    "request_throughput": ("request_throughput", 1),
    "output_throughput": ("output_throughput", 1),
    "mean_ttft": ("mean_ttft_ms", 0.001),
    "kv_cache": ("kv_cache_tokens", 1),
}


@dataclass(frozen=True)
class ComparedRow:
    """One figure on two sides.

    Args:
        load: of the runs, in words.
        sessions: of the runs on each side: the last that ran this load.
        name, unit: of the figure.
        before, now: means.
        change: relative; None when `before` is 0.
        better: whether it improved.
        spread: relative change that repeats explain; None when not repeated.
    """

    load: str
    sessions: tuple[str, str]
    name: str
    unit: str
    before: float
    now: float
    change: float | None
    better: bool
    spread: float | None = None


@dataclass(frozen=True)
class PublishedRow:
    """A published figure for two strategies beside the one measured here; None where nothing was measured."""

    name: str
    unit: str
    hardware: str
    strategies: tuple[str, str]
    published: tuple[float, float]
    measured: tuple[float | None, float | None]

    @property
    def change(self) -> float:
        """Relative change between the two published figures."""
        return (self.published[1] - self.published[0]) / self.published[0]

    @property
    def measured_change(self) -> float | None:
        """Relative change between the two measured figures."""
        before, now = self.measured
        return (now - before) / before if before and now is not None else None


@dataclass(frozen=True)
class ScoreRow:
    """An evaluation's score, half its 95 % interval, and the published score."""

    series: str
    name: str
    value: float
    margin: float
    questions: int
    published: float | None
    hardware: str


@dataclass(frozen=True)
class Summary:
    """A whole report.

    Args:
        title: of the page.
        runs: completed benchmark runs, oldest first.
        failed: runs that do not count.
        series: name -> its runs. A series is one shape on one release and hardware.
        sides: names of the two compared series, or empty.
        rows: the comparison.
        published: figures of the recipe's authors.
        scores: of evaluations.
        broken: files of the ledger that could not be read.
    """

    title: str
    runs: tuple[LedgerEntry, ...]
    failed: tuple[LedgerEntry, ...]
    series: Mapping[str, tuple[LedgerEntry, ...]]
    sides: tuple[str, ...]
    rows: tuple[ComparedRow, ...]
    published: tuple[PublishedRow, ...]
    scores: tuple[ScoreRow, ...]
    broken: tuple[str, ...] = ()

    @property
    def starts(self) -> list[tuple[str, LedgerEntry]]:
        """The latest start of each series whose engine's log was read."""
        starts = []
        for name, runs in self.series.items():
            logged = [run for run in runs if run.engine]
            starts += [(name, logged[-1])] if logged else []
        return starts


def series_name(entry: LedgerEntry) -> str:
    """Return the name of the series that a run belongs to: shape, vLLM and hardware."""
    return f"{entry.label}, vLLM {entry.vllm_version}, {entry.hardware or 'unknown hardware'}"


def last_session(runs: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """Return the runs of the last session among some, oldest first; runs of several sessions are not repeats."""
    return [run for run in runs if run.session == runs[-1].session] if runs else []


def summarize(
    entries: Sequence[LedgerEntry], recipe: Recipe | None, *, compare: Sequence[str] = (), broken: Sequence[str] = ()
) -> Summary:
    """Group and compare the runs of a ledger.

    Args:
        entries: oldest first.
        recipe: adds its published figures; None leaves them out.
        compare: for each side a label, or the beginning of a session, digest or release; without them the first two
            series are compared.
        broken: files that could not be read; the report lists them.

    Raises:
        Refusal: no entries, or a side without runs.
    """
    if not entries:
        raise Refusal("the ledger is empty", needed="at least one run", fix="muster bench INVENTORY RECIPE")
    runs = tuple(e for e in entries if e.kind == "bench" and not e.problems)
    series: dict[str, list[LedgerEntry]] = {}
    for entry in runs:
        series.setdefault(series_name(entry), []).append(entry)
    sides = _sides(runs, series, compare)
    return Summary(
        title=recipe.title if recipe else "Benchmarks",
        runs=runs,
        failed=tuple(e for e in entries if e.problems),
        series={name: tuple(members) for name, members in series.items()},
        sides=tuple(name for name, _ in sides) if len(sides) == 2 else (),
        rows=tuple(_rows(sides[0][1], sides[1][1])) if len(sides) == 2 else (),
        published=tuple(_published(recipe, runs)) if recipe else (),
        scores=tuple(_scores(entries, recipe)),
        broken=tuple(broken),
    )


def _sides(
    runs: Sequence[LedgerEntry], series: Mapping[str, Sequence[LedgerEntry]], compare: Sequence[str]
) -> list[tuple[str, Sequence[LedgerEntry]]]:
    if not compare:
        return list(series.items())[:2]
    sides: list[tuple[str, Sequence[LedgerEntry]]] = []
    for word in compare:
        matching = [e for e in runs if e.label == word or e.goes_by(word)]
        if not matching:
            raise Refusal(
                f"--compare {word}: no completed run of that session, digest, release or shape",
                needed=f"one of {', '.join(sorted({e.label for e in runs} | {e.session for e in runs}))}",
            )
        sides.append((f"{word} ({series_name(matching[-1])})", matching))
    return sides


def _rows(before: Sequence[LedgerEntry], now: Sequence[LedgerEntry]) -> Iterable[ComparedRow]:
    loads = [load for load in dict.fromkeys(e.load_key for e in now) if any(e.load_key == load for e in before)]
    for load in loads:
        left, right = (last_session([e for e in side if e.load_key == load]) for side in (before, now))
        for kind in FIGURES.values():
            if not all(kind.key in entry.figures for entry in [*left, *right]):
                continue
            old, new = ([e.figures[kind.key] for e in side] for side in (left, right))
            change = (mean(new) - mean(old)) / mean(old) if mean(old) else None
            yield ComparedRow(
                load,
                (left[-1].session, right[-1].session),
                kind.words,
                kind.unit,
                mean(old),
                mean(new),
                change,
                (change or 0) * kind.direction > 0,
                regression_gate.spread(old, new, regression_gate.ALPHA),
            )


def _published(recipe: Recipe, runs: Sequence[LedgerEntry]) -> Iterable[PublishedRow]:
    for published in recipe.published:
        if published.metric not in PUBLISHED or len(published.values) != 2:
            continue
        first, second = published.values
        figure, factor = PUBLISHED[published.metric]
        yield PublishedRow(
            name=published.metric.replace("_", " "),
            unit=published.unit,
            hardware=published.hardware,
            strategies=(first, second),
            published=(published.values[first], published.values[second]),
            measured=(_latest(runs, recipe, first, figure, factor), _latest(runs, recipe, second, figure, factor)),
        )


def _latest(runs: Sequence[LedgerEntry], recipe: Recipe, strategy: str, figure: str, factor: float) -> float | None:
    """Return the mean of the last session that ran the published load; the cache does not depend on the load."""
    usable = [e for e in runs if e.recipe == recipe.name and e.strategy == strategy and figure in e.figures]
    if figure != "kv_cache_tokens":
        usable = [e for e in usable if recipe.bench.get(e.scenario, {}).get("num-prompts") == e.prompts]
    return mean(e.figures[figure] for e in usable if e.session == usable[-1].session) * factor if usable else None


def _scores(entries: Sequence[LedgerEntry], recipe: Recipe | None) -> Iterable[ScoreRow]:
    for entry in entries:
        if entry.kind != "eval" or entry.problems:
            continue
        for name, (value, error) in entry.scores.items():
            published, hardware = _published_score(recipe.published if recipe else (), name, entry.strategy)
            yield ScoreRow(series_name(entry), name, value, WIDTH * error, entry.prompts, published, hardware)


def _published_score(published: Iterable[Published], name: str, strategy: str) -> tuple[float | None, str]:
    for figure in published:
        if figure.metric == name and strategy in figure.values:
            return figure.values[strategy], figure.hardware
    return None, ""
