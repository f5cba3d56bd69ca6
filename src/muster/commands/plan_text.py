"""A plan as text for people and as plain data for scripts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from muster.plan.types import Plan


def as_json(plan: Plan, sources: Sequence[str] = ()) -> dict[str, Any]:
    """Return the plan as plain data, for scripts and checks.

    Args:
        plan: to show.
        sources: files that its settings and its pin were read from.
    """
    return {
        **({"read": list(sources)} if sources else {}),
        "group": plan.group,
        "recipe": plan.recipe,
        "strategy": plan.strategy,
        "label": plan.label,
        "model": plan.model,
        "served_model_name": plan.served_model_name,
        "vllm_version": plan.vllm_version,
        "digest": plan.digest,
        "endpoint": plan.endpoint,
        "release": {
            "id": plan.release.id,
            "path": plan.release.path,
            "python": plan.release.python,
            "requirements": list(plan.release.requirements),
            "build": plan.variant,
            "build_assumed": plan.variant_assumed,
        },
        "hosts": {
            name: {
                "role": host.role,
                "node_rank": host.node_rank,
                "address": host.address,
                "interface": host.interface,
                "gpu": host.gpu,
                "gpus": host.gpus,
                "dp_ranks": list(host.dp_ranks),
                "processes": [
                    {"name": process.name, "argv": list(process.argv), "env": dict(process.env)}
                    for process in host.processes
                ],
                "units": list(host.units),
                "files": {
                    path: {"mode": file.mode, "owner": file.owner, "group": file.group, "text": file.text}
                    for path, file in host.files.items()
                },
                "secrets": [secret.path for secret in plan.secrets],
            }
            for name, host in plan.hosts.items()
        },
        "order": [list(layer) for layer in plan.order],
        "memory": plan.memory
        and {
            "parts": [{"name": part.name, "bytes": part.bytes, "why": part.why} for part in plan.memory.parts],
            "budget_bytes": plan.memory.budget,
            "cache_bytes": plan.memory.cache,
            "cache_tokens": plan.memory.tokens,
            "needed_tokens": plan.memory.needed_tokens,
            "fits": plan.memory.fits,
        },
        "warnings": list(plan.warnings),
        "refused": plan.refused,
    }


ASSUMED = ", assumed: a deploy takes what the oldest driver of the hosts runs; torch_backend fixes it"


def as_text(plan: Plan, sources: Sequence[str] = ()) -> str:
    """Return the plan for reading: one block per host, commands as one would type them.

    Args:
        plan: to show.
        sources: files that its settings and its pin were read from.
    """
    lines = [
        f"{plan.recipe} as {plan.label} (strategy {plan.strategy}), vLLM {plan.vllm_version}",
        f"group {plan.group} · digest {plan.digest} · release {plan.release.id}",
        f"endpoint {plan.endpoint} · served as {plan.served_model_name}",
        *([f"build {plan.variant}{ASSUMED if plan.variant_assumed else ''}"] if plan.variant else []),
        *([f"read {' · '.join(sources)}"] if sources else []),
        "",
    ]
    for name, host in plan.hosts.items():
        ranks = f" · DP ranks {host.dp_ranks[0]}-{host.dp_ranks[-1]}" if len(host.dp_ranks) > 1 else ""
        lines.append(
            f"{name} · {host.role} · node rank {host.node_rank}{ranks} · {host.address} · {host.gpus} x {host.gpu}"
        )
        for process in host.processes:
            lines += ["", *(f"    {line}" for line in command_lines(process.argv)), ""]
            lines += [f"    {key}={shlex.quote(value)}" for key, value in sorted(process.env.items())]
        lines += ["", "    files"]
        lines += [f"      {file.mode} {file.owner}:{file.group} {path}" for path, file in sorted(host.files.items())]
        lines += [
            f"      {secret.mode} {secret.owner}:{secret.group} {secret.path} (secret)" for secret in plan.secrets
        ]
        lines += [f"    units {' '.join(host.units)}", ""]
    lines.append("order of bring-up")
    lines += [f"  {number}. {', '.join(layer)}" for number, layer in enumerate(plan.order, 1)]
    if plan.memory:
        lines += ["", "memory of one GPU", plan.memory.table()]
    if plan.warnings:
        lines += ["", "take note"]
        lines += [f"  - {warning}" for warning in plan.warnings]
    if plan.refused:
        lines += ["", "no deploy brings this plan to a host", *(f"  {line}" for line in plan.refused.splitlines())]
    return "\n".join(lines)


def command_lines(argv: Sequence[str]) -> list[str]:
    """Return a command as one would type it, one flag a line."""
    lines: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    last = len(lines) - 1
    return [("  " if i else "") + " ".join(words) + (" \\" if i < last else "") for i, words in enumerate(lines)]
