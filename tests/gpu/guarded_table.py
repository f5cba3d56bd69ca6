"""One table of what was done to a guarded group on real GPUs."""

from __future__ import annotations

from typing import Any

HEAD = (
    "| fault, under load | detected | all processes gone (bound) | GPU memory free | new generation started (bound) |"
    " every rank answers | requests lost | recorded first failure |"
)


def markdown(run: dict[str, Any]) -> str:
    """Return the whole table with the machine above it and how to read it below."""
    on = run["machine"]
    about = f"{on['gpus']}, {on['memory']}, driver {on['driver']}; vLLM {on['vllm']}, torch {on['torch']}; {on['date']}"
    start = run.get("first_start_seconds")
    begun = f"First start, caches empty: {start} s" if start is not None else "It did not become ready"
    shared = ", both ranks on the one GPU, dense model" if run["case"] == "dp-shared" else ""
    notes = (
        f"{run['label']}{shared}, {run['clients_per_rank']} clients a DP rank, {run['tokens']} tokens an answer;"
        f" seconds after the fault. {begun}; later starts find the caches persisted. Supervisor: {run['supervisor']}."
        f" stall_timeout {run['settings']['stall_timeout']} s. GPU memory is free when nvidia-smi lists no process and"
        f" each GPU is within {run['free_means_mib_above_idle']} MiB of idle."
    )
    if "soak" in run:
        soak = run["soak"]
        core, size = max(soak["guard_core_percent"]), max(soak["guard_mib"])
        notes += (
            f"\n\nBefore the faults, {soak['seconds']:.0f} s of load alone: {soak['restarts']} restarts,"
            f" {soak['failed']} requests failed of {sum(soak['answered'].values())},"
            f" {soak['output_tokens_per_s']:,} output tok/s; a guard took {core} % of a core and {size} MiB at most."
        )
    rows = [row(fault) for fault in run["faults"]]
    failed = [f"\nFailed: {run['error']}"] if "error" in run else []
    return "\n".join([about, "", HEAD, "|" + " --- |" * (HEAD.count("|") - 1), *rows, "", notes, *failed]) + "\n"


def row(fault: dict[str, Any]) -> str:
    """Return the row of one fault."""
    gone, new = fault["bounds"]
    answers = fault.get("answering", {}).values()
    used = " + ".join(f"{mib / 1024:.1f}" for mib in fault["used_mib"])
    failure = fault["failure"]
    cells = [
        fault["text"],
        _seconds(fault["detected"]),
        f"{_seconds(fault['all_gone'])} ({gone:g} s)",
        f"{_seconds(fault['gpu_memory_free'])} ({used} GiB)",
        f"{_seconds(fault['new_generation'])} ({new:g} s)",
        _seconds(max(answers) if answers else None),
        f"{fault['lost']} of {fault['in_flight']}",
        f"{failure.get('host')}: {failure.get('reason')}" if failure else "none",
    ]
    return f"| {' | '.join(cells)} |"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
