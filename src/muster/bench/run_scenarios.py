"""Run scenarios on a group and keep every run in the ledger."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from muster.bench import bench_result, failed_requests, ledger, scenario
from muster.bench.ledger import LedgerEntry
from muster.bench.measured_group import MeasuredGroup, RunningEngine, ToolResult
from muster.errors import Refusal
from muster.guard.endpoint_kinds import COMPLETIONS
from muster.plan.types import Plan

Say = Callable[[str], None]


def new_session() -> str:
    """Return a session's name: the time in UTC and four random digits."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def entry_of(
    group: MeasuredGroup, running: RunningEngine, *, kind: str, session: str, number: int, **fields: Any
) -> LedgerEntry:
    """Return a ledger entry with what the plan and the hosts report, and `fields` of the run."""
    plan = group.plan
    return LedgerEntry(
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
        hardware=running.hardware,
        driver=running.driver,
        engine=asdict(running.log),
        **fields,
    )


def require_measurable(plan: Plan) -> None:
    """Refuse a group that a run on its head would not measure.

    Raises:
        Refusal: each host answers for its own ranks: a run would load those of the head alone; or the tool cannot ask
            what the model answers.
    """
    if plan.kind.bench is None:
        raise Refusal(
            f"{plan.recipe} answers {plan.endpoint_kind}",
            needed="a kind of endpoint that `vllm bench serve` can load",
            fix=f"load {plan.endpoint}{plan.kind.path} with a tool of your own",
        )
    if plan.hybrid:
        raise Refusal(
            f"{plan.label}: every host answers for its own DP ranks, and a run would load the head's alone",
            needed="one endpoint for all ranks",
            fix="measure through the load balancer with `vllm bench serve`, or a strategy with internal load balancing",
        )


def measure(
    group: MeasuredGroup,
    running: RunningEngine,
    scenarios: Sequence[scenario.Scenario],
    *,
    directory: Path,
    sweep: bool,
    repeat: int,
    seconds: int,
    say: Say,
) -> Iterator[LedgerEntry]:
    """Run each scenario, step and repeat in turn; keep and yield every run.

    Args:
        group: to measure.
        running: from `MeasuredGroup.check`.
        scenarios: to run.
        directory: of the ledger.
        sweep: whether to step through the scenario's numbers of prompts.
        repeat: runs of each step.
        seconds: limit of one run.
        say: prints progress.

    Raises:
        Refusal: as `require_measurable`.
    """
    require_measurable(group.plan)
    session = new_session()
    seed, number = secrets.randbelow(1_000_000) * 1000, 0
    for load in scenarios:
        for prompts in load.prompts(sweep=sweep):
            for _ in range(repeat):
                number += 1
                # Without prompts of its own, a run would be answered from the engine's prefix cache.
                seeded = replace(load, flags={"seed": seed + number, **load.flags})
                done = _run(group, seeded, prompts, f"muster-bench-{session.lower()}-{number}", seconds, say)
                entry = _entry(group, running, load, prompts, done, session, number)
                ledger.write(directory, entry)
                yield entry


def _run(group: MeasuredGroup, load: scenario.Scenario, prompts: int, name: str, seconds: int, say: Say) -> ToolResult:
    plan, directory = group.plan, group.directory(name)
    tool = scenario.argv(
        load,
        prompts=prompts,
        base_url=plan.local_endpoint,
        model=plan.model,
        served_model_name=plan.served_model_name,
        result_dir=directory,
        result_filename="result.json",
        trust_remote_code=group.settings.trust_remote_code,
        metadata={"digest": plan.digest, "scenario": load.name},
        backend=None if plan.endpoint_kind == COMPLETIONS else plan.kind.bench,
    )
    tool[0] = f"{plan.release.path}/bin/{tool[0]}"
    argv = failed_requests.argv(f"{directory}/result.json", tool)
    files = {failed_requests.FILE: failed_requests.PROGRAM}
    return group.run_tool(name, argv, result="result.json", files=files, seconds=seconds, say=say)


def _entry(
    group: MeasuredGroup,
    running: RunningEngine,
    load: scenario.Scenario,
    prompts: int,
    done: ToolResult,
    session: str,
    number: int,
) -> LedgerEntry:
    figures, problems, raw = outcome(done)
    if running.log.tokens:
        figures["kv_cache_tokens"] = float(running.log.tokens)
    fields = {"scenario": load.name, "prompts": prompts, "load": dict(load.flags) | {"num-prompts": prompts}}
    return entry_of(
        group,
        running,
        kind="bench",
        session=session,
        number=number,
        figures=figures,
        problems=problems,
        raw=raw,
        **fields,
    )


def outcome(done: ToolResult) -> tuple[dict[str, float], tuple[str, ...], Any]:
    """Return figures, problems and the tool's JSON of a finished run."""
    if done.result is None:
        last = done.lines[-1] if done.lines else "it printed nothing"
        return {}, (f"the tool ended with {done.status} and wrote no result: {last}",), None
    try:
        result = bench_result.parse_text(done.result)
    except bench_result.UnreadableResult as error:
        return {}, (str(error),), None
    problems = result.problems + ((f"the tool ended with {done.status}",) if done.status else ())
    figures = {
        "request_throughput": result.request_throughput,
        **({} if result.output_throughput is None else {"output_throughput": result.output_throughput}),
        "total_token_throughput": result.total_token_throughput,
        "duration": result.duration,
        **result.latency,
    }
    return figures, problems, _finite(json.loads(done.result))


def _finite(value: Any) -> Any:
    """Return JSON without NaN and infinities: the tool writes them, other readers refuse them."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and value - value != 0 else value
