"""One table of a run on real GPUs."""

from __future__ import annotations

from typing import Any

HEAD = "| case | shape | caches | healthy after | KV cache, tokens | load | output tok/s | TTFT | TPOT | result |"


def markdown(kept: dict[str, Any]) -> str:
    """Return the whole table with the machine above it."""
    on = kept["machine"]
    about = f"{on['gpus']}, {on['memory']}, driver {on['driver']}; vLLM {on['vllm']}, torch {on['torch']}; {on['date']}"
    rows = [row for record in kept["cases"] for row in rows_of(record)]
    return "\n".join([about, "", HEAD, "|" + " --- |" * (HEAD.count("|") - 1), *rows]) + "\n"


def rows_of(record: dict[str, Any]) -> list[str]:
    """Return one row for each load of a case, or one for a start that failed."""
    engine = record["engine"]
    tokens = f"{min(engine['cache_tokens']):,}" if engine["cache_tokens"] else ""
    healthy = f"{record['healthy_seconds']:.0f} s" if "healthy_seconds" in record else ""
    start = f"| {record['case']} | {record['label']} | {record['caches']} | {healthy} | {tokens} |"
    if "error" in record:
        return [f"{start} | | | | failed: {record['error']} |"]
    return [f"{start} {_load(load)}" for load in record["loads"]] or [f"{start} | | | | answers |"]


def _load(load: dict[str, Any]) -> str:
    if load["problems"]:
        return f"{load['load']} | | | | failed: {'; '.join(load['problems'])} |"
    flags, latency = load["flags"], load["latency"]
    shape = f"{flags['random-input-len']} in, {flags['random-output-len']} out, {load['prompts']} prompts"
    return (
        f"{shape} | {load['output_throughput']:,.0f} | {latency['mean_ttft_ms']:,.0f} ms |"
        f" {latency['mean_tpot_ms']:.2f} ms | ok |"
    )


def line(record: dict[str, Any]) -> str:
    """Return what is printed when a case is done."""
    return "\n".join(rows_of(record))
