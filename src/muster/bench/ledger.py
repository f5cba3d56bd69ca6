"""The ledger: one JSON file for each benchmark or evaluation, with what ran and the tool's own output."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from muster.errors import Refusal

SCHEMA = 1
STANDARD_ERROR = " stderr"
"""What the figure with a score's standard error has after the score's name."""


@dataclass(frozen=True)
class LedgerEntry:
    """One run.

    Args:
        id: file name without its suffix; sorts by time.
        kind: `bench` or `eval`.
        session: the command that made it; runs of one session belong together.
        at: ISO 8601, UTC.
        recipe, strategy, label, model, digest, release, vllm_version: of the plan that ran.
        hardware, driver: as the hosts report them: `16x NVIDIA H200`.
        scenario: of the benchmark, or the task of the evaluation.
        prompts: number of requests or questions.
        load: flags of the scenario.
        problems: why the run does not count; empty when it does.
        figures: name -> number; latencies in ms, throughputs in 1/s, `kv_cache_tokens` in tokens.
        engine: what the engine logged at its start (`muster.bench.engine_log`).
        raw: the tool's JSON.
    """

    id: str
    kind: str
    session: str
    at: str
    recipe: str
    strategy: str
    label: str
    model: str
    digest: str
    release: str
    vllm_version: str
    scenario: str
    prompts: int
    hardware: str = ""
    driver: str = ""
    load: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    raw: Any = None

    @property
    def load_key(self) -> str:
        """The load in words; two runs with one key repeat each other."""
        sizes = [f"{self.load[key]} {word}" for key, word in _SIZES.items() if key in self.load]
        return ", ".join([self.scenario, *sizes, f"{self.prompts} {'questions' if self.kind == 'eval' else 'prompts'}"])

    @property
    def scores(self) -> dict[str, tuple[float, float]]:
        """The scores of an evaluation: name -> value and standard error."""
        errors = {name: self.figures.get(name + STANDARD_ERROR) for name in self.figures}
        return {name: (self.figures[name], error) for name, error in errors.items() if error is not None}

    def goes_by(self, word: str) -> bool:
        """Whether a word is the beginning of its session, plan digest or release."""
        return any(name.startswith(word) for name in (self.session, self.digest, self.release))


_SIZES = {
    "random-input-len": "in",
    "random-output-len": "out",
    "request-rate": "req/s",
    "max-concurrency": "at once",
    "fewshot": "examples",
}


def write(directory: Path, entry: LedgerEntry) -> Path:
    """Keep an entry. A reader finds the whole file or none."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{entry.id}.json"
    draft = path.with_suffix(".tmp")
    text = json.dumps({"schema": SCHEMA, **asdict(entry)}, indent=1, allow_nan=False, default=str)
    draft.write_text(text + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def parse(raw: object) -> LedgerEntry:
    """Read one entry.

    Raises:
        ValueError: what is wrong with it.
    """
    if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA:
        raise ValueError("not an entry of this ledger")
    known = {f.name: raw[f.name] for f in fields(LedgerEntry) if f.name in raw}
    try:
        entry = LedgerEntry(**{**known, "problems": tuple(known.get("problems", ()))})
    except TypeError as error:
        raise ValueError(str(error)) from None
    texts = (entry.id, entry.kind, entry.session, entry.at, entry.scenario, entry.label, entry.digest, entry.release)
    if not all(isinstance(text, str) for text in texts) or not isinstance(entry.prompts, int):
        raise ValueError("a name or number of another type")
    if not all(isinstance(part, Mapping) for part in (entry.figures, entry.load, entry.engine)):
        raise ValueError("figures, load or engine is no mapping")
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in entry.figures.values()):
        raise ValueError("a figure that is no number")
    return entry


def read(place: Path) -> tuple[list[LedgerEntry], list[str]]:
    """Return the entries of a directory or file, oldest first, and one line for each unreadable file."""
    entries, broken = [], []
    for path in sorted(place.rglob("*.json")) if place.is_dir() else [place]:
        try:
            entries.append(parse(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, RecursionError) as error:
            broken.append(f"{path}: {error}")
    return sorted(entries, key=lambda entry: (entry.at, entry.id)), broken


def baseline(word: str, kept: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """Return the entries that a word names: a directory, a file, or the beginning of a session, digest or release.

    Raises:
        Refusal: nothing has that name.
    """
    if Path(word).exists():
        return read(Path(word))[0]
    kept = list(kept)
    matching = [e for e in kept if word and e.goes_by(word)]
    if not matching:
        sessions = sorted({entry.session for entry in kept})[-5:]
        raise Refusal(
            f"no baseline '{word}': neither a file nor a session, plan digest or release of the ledger",
            needed=f"one of {', '.join(sessions)}" if sessions else "a kept run; the ledger is empty",
            fix="run the benchmark once on the version to compare with",
        )
    return matching
