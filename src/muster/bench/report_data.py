"""What a report says, as data: runs grouped into series and loads, compared, next to published figures. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from muster.bench import regression_gate
from muster.bench.eval_result import WIDTH
from muster.bench.ledger import Entry
from muster.errors import Refusal
from muster.spec.recipe import Published, Recipe

# Figure -> (name in words, unit, factor from the ledger's unit, +1 where more is better).
FIGURES: Mapping[str, tuple[str, str, float, int]] = {
    "request_throughput": ("Request throughput", "req/s", 1, 1),
    "output_throughput": ("Output token throughput", "tok/s", 1, 1),
    "mean_ttft_ms": ("Mean TTFT", "ms", 1, -1),
    "p99_ttft_ms": ("p99 TTFT", "ms", 1, -1),
    "mean_tpot_ms": ("Mean TPOT", "ms", 1, -1),
    "p99_tpot_ms": ("p99 TPOT", "ms", 1, -1),
    "kv_cache_tokens": ("KV cache", "tokens", 1, 1),
}
# Published metric -> figure of the ledger, factor from the ledger's unit to the published one, +1 where more is better.
PUBLISHED: Mapping[str, tuple[str, float, int]] = {
    "request_throughput": ("request_throughput", 1, 1),
    "output_throughput": ("output_throughput", 1, 1),
    "mean_ttft": ("mean_ttft_ms", 0.001, -1),
    "kv_cache": ("kv_cache_tokens", 1, 1),
}


@dataclass(frozen=True)
class Row:
    """One figure on two sides.

    Args:
        load: what was run.
        name, unit: of the figure.
        before, now: means; change: relative, None without a `before`.
        better: whether the change is one for the better.
        spread: relative change that repeats explain; None when not repeated.
    """

    load: str
    name: str
    unit: str
    before: float
    now: float
    change: float | None
    better: bool
    spread: float | None = None


@dataclass(frozen=True)
class PublishedRow:
    """A published figure for two strategies, and what was measured here for each (None: nothing)."""

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
class Score:
    """An evaluation's score with half its 95 % interval, and the published one."""

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
        series: name -> its runs; a series is one shape on one release and hardware.
        sides: names of the two series compared, or empty.
        rows: the comparison.
        published: figures of the recipe's authors.
        scores: of evaluations.
        broken: files of the ledger that could not be read.
    """

    title: str
    runs: tuple[Entry, ...]
    failed: tuple[Entry, ...]
    series: Mapping[str, tuple[Entry, ...]]
    sides: tuple[str, ...]
    rows: tuple[Row, ...]
    published: tuple[PublishedRow, ...]
    scores: tuple[Score, ...]
    broken: tuple[str, ...] = ()

    @property
    def starts(self) -> list[tuple[str, Entry]]:
        """The latest start of each series whose engine's log was read."""
        found = []
        for name, runs in self.series.items():
            told = [run for run in runs if run.engine]
            found += [(name, told[-1])] if told else []
        return found


def series_name(entry: Entry) -> str:
    """Return the name of the series a run belongs to: what ran, on what."""
    return f"{entry.label}, vLLM {entry.vllm_version}, {entry.hardware or 'unknown hardware'}"


def summarize(
    entries: Sequence[Entry], recipe: Recipe | None, *, compare: Sequence[str] = (), broken: Sequence[str] = ()
) -> Summary:
    """Group and compare the runs of a ledger.

    Args:
        entries: oldest first.
        recipe: whose published figures stand beside; None leaves them out.
        compare: beginnings of session, digest, release or label of the two sides; the first two series otherwise.
        broken: files that could not be read, to be said.

    Raises:
        Refusal: no entries, or a side that names no run.
    """
    if not entries:
        raise Refusal("the ledger is empty", needed="at least one run", fix="muster bench INVENTORY RECIPE")
    runs = tuple(e for e in entries if e.kind == "bench" and not e.problems)
    series: dict[str, list[Entry]] = {}
    for entry in runs:
        series.setdefault(series_name(entry), []).append(entry)
    sides = _sides(runs, series, compare)
    return Summary(
        title=recipe.title if recipe else "Benchmarks",
        runs=runs,
        failed=tuple(e for e in entries if e.problems),
        series={name: tuple(found) for name, found in series.items()},
        sides=tuple(name for name, _ in sides) if len(sides) == 2 else (),
        rows=tuple(_rows(sides[0][1], sides[1][1])) if len(sides) == 2 else (),
        published=tuple(_published(recipe, runs)) if recipe else (),
        scores=tuple(_scores(entries, recipe)),
        broken=tuple(broken),
    )


def _sides(
    runs: Sequence[Entry], series: Mapping[str, Sequence[Entry]], compare: Sequence[str]
) -> list[tuple[str, Sequence[Entry]]]:
    if not compare:
        return list(series.items())[:2]
    sides: list[tuple[str, Sequence[Entry]]] = []
    for word in compare:
        names = [(e, (e.session, e.digest, e.release)) for e in runs]
        found = [e for e, told in names if e.label == word or any(name.startswith(word) for name in told)]
        if not found:
            raise Refusal(
                f"--compare {word}: no completed run of that session, digest, release or shape",
                needed=f"one of {', '.join(sorted({e.label for e in runs} | {e.session for e in runs}))}",
            )
        sides.append((f"{word} ({series_name(found[-1])})", found))
    return sides


def _rows(before: Sequence[Entry], now: Sequence[Entry]) -> Iterable[Row]:
    loads = [load for load in dict.fromkeys(e.load_key for e in now) if any(e.load_key == load for e in before)]
    for load in loads:
        left, right = ([e for e in side if e.load_key == load] for side in (before, now))
        for figure, (name, unit, factor, sign) in FIGURES.items():
            if not all(figure in entry.figures for entry in [*left, *right]):
                continue
            old, new = ([e.figures[figure] * factor for e in side] for side in (left, right))
            change = (mean(new) - mean(old)) / mean(old) if mean(old) else None
            yield Row(
                load,
                name,
                unit,
                mean(old),
                mean(new),
                change,
                (change or 0) * sign > 0,
                regression_gate.spread(old, new, regression_gate.ALPHA),
            )


def _published(recipe: Recipe, runs: Sequence[Entry]) -> Iterable[PublishedRow]:
    for told in recipe.published:
        if told.metric not in PUBLISHED or len(told.values) != 2:
            continue
        first, second = told.values
        figure, factor, _ = PUBLISHED[told.metric]
        yield PublishedRow(
            name=told.metric.replace("_", " "),
            unit=told.unit,
            hardware=told.hardware,
            strategies=(first, second),
            published=(told.values[first], told.values[second]),
            measured=(_latest(runs, recipe, first, figure, factor), _latest(runs, recipe, second, figure, factor)),
        )


def _latest(runs: Sequence[Entry], recipe: Recipe, strategy: str, figure: str, factor: float) -> float | None:
    """Return the mean of the last session that ran the published load; the cache does not depend on the load."""
    found = [e for e in runs if e.recipe == recipe.name and e.strategy == strategy and figure in e.figures]
    if figure != "kv_cache_tokens":
        found = [e for e in found if recipe.bench.get(e.scenario, {}).get("num-prompts") == e.prompts]
    return mean(e.figures[figure] for e in found if e.session == found[-1].session) * factor if found else None


def _scores(entries: Sequence[Entry], recipe: Recipe | None) -> Iterable[Score]:
    for entry in entries:
        if entry.kind != "eval" or entry.problems:
            continue
        for name, value in entry.figures.items():
            if f"{name} stderr" not in entry.figures:
                continue
            told = _published_score(recipe.published if recipe else (), name, entry.strategy)
            margin = WIDTH * entry.figures[f"{name} stderr"]
            published, hardware = told if told else (None, "")
            yield Score(series_name(entry), name, value, margin, entry.prompts, published, hardware)


def _published_score(published: Iterable[Published], name: str, strategy: str) -> tuple[float, str] | None:
    found = [
        (told.values[strategy], told.hardware) for told in published if told.metric == name and strategy in told.values
    ]
    return found[0] if found else None
