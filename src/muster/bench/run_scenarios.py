"""Run scenarios on a group and keep every run in the ledger."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from muster.bench import bench_result, ledger, scenario
from muster.bench.ledger import Entry
from muster.bench.measured_group import Cluster, Done, Seen

RUN_SECONDS = 4 * 3600
Say = Callable[[str], None]


def new_session() -> str:
    """Return the name of one command's runs: time in UTC and four random digits."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def entry_of(cluster: Cluster, seen: Seen, *, kind: str, session: str, number: int, **own: Any) -> Entry:
    """Return a ledger entry with all that the plan and the hosts say."""
    plan = cluster.plan
    return Entry(
        id=f"{session}-{kind}-{number:03d}",
        kind=kind,
        session=session,
        at=f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        recipe=plan.recipe,
        strategy=plan.strategy,
        label=plan.label,
        model=plan.model,
        digest=plan.digest,
        release=plan.release.id,
        vllm_version=plan.vllm_version,
        hardware=seen.hardware,
        driver=seen.driver,
        engine=asdict(seen.engine),
        **own,
    )


def measure(
    cluster: Cluster,
    seen: Seen,
    scenarios: Sequence[scenario.Scenario],
    *,
    directory: Path,
    sweep: bool,
    repeat: int,
    seconds: int,
    say: Say,
) -> Iterator[Entry]:
    """Run each scenario, each step and each repeat, one after the other; keep and yield every run.

    Args:
        cluster, seen: of `Cluster.check`.
        scenarios: to run.
        directory: of the ledger.
        sweep: whether to step through the scenario's numbers of prompts.
        repeat: runs of each step.
        seconds: the longest that one run may take.
        say: for progress.
    """
    session = new_session()
    seed, number = secrets.randbelow(1_000_000) * 1000, 0
    for load in scenarios:
        for prompts in load.prompts(sweep=sweep):
            for _ in range(repeat):
                number += 1
                # Every run gets prompts of its own, or the engine's prefix cache answers for it.
                own = replace(load, flags={"seed": seed + number, **load.flags})
                done = _run(cluster, own, prompts, f"muster-bench-{session.lower()}-{number}", seconds, say)
                entry = _entry(cluster, seen, load, prompts, done, session, number)
                ledger.write(directory, entry)
                yield entry


def _run(cluster: Cluster, load: scenario.Scenario, prompts: int, name: str, seconds: int, say: Say) -> Done:
    plan = cluster.plan
    argv = scenario.argv(
        load,
        prompts=prompts,
        base_url=plan.local_endpoint,
        model=plan.model,
        served_model_name=plan.served_model_name,
        result_dir=cluster.directory(name),
        result_filename="result.json",
        trust_remote_code=cluster.settings.trust_remote_code,
        metadata={"digest": plan.digest, "scenario": load.name},
    )
    return cluster.run_tool(name, argv, result="result.json", seconds=seconds, say=say)


def _entry(
    cluster: Cluster, seen: Seen, load: scenario.Scenario, prompts: int, done: Done, session: str, number: int
) -> Entry:
    figures, problems, raw = outcome(done)
    if seen.engine.tokens:
        figures["kv_cache_tokens"] = float(seen.engine.tokens)
    own = {"scenario": load.name, "prompts": prompts, "load": dict(load.flags) | {"num-prompts": prompts}}
    return entry_of(
        cluster, seen, kind="bench", session=session, number=number, figures=figures, problems=problems, raw=raw, **own
    )


def outcome(done: Done) -> tuple[dict[str, float], tuple[str, ...], Any]:
    """Return figures, problems and the tool's JSON of a run that has ended."""
    import json

    if done.result is None:
        last = done.lines[-1] if done.lines else "it said nothing"
        return {}, (f"the tool ended with {done.status} and wrote no result: {last}",), None
    try:
        found = bench_result.parse_text(done.result)
    except bench_result.Unreadable as error:
        return {}, (str(error),), None
    problems = found.problems + ((f"the tool ended with {done.status}",) if done.status else ())
    figures = {
        "request_throughput": found.request_throughput,
        "output_throughput": found.output_throughput,
        "total_token_throughput": found.total_token_throughput,
        "duration": found.duration,
        **found.latency,
    }
    return figures, problems, _finite(json.loads(done.result))


def _finite(value: Any) -> Any:
    """Return JSON without NaN and infinities, which the tool writes and no other reader takes."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and value - value != 0 else value
