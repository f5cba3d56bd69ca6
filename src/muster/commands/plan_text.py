"""A plan as text for people and as plain data for scripts."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

from muster.guard.endpoint_kinds import COMPLETIONS
from muster.plan import firewall
from muster.plan.types import HostPlan, Plan, Process, WeightsSource


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
        "profile": plan.profile,
        "serves": plan.serves,
        **({"weights": _weights(plan.weights)} if plan.weights else {}),
        "label": plan.label,
        "model": plan.model,
        "served_model_name": plan.served_model_name,
        "vllm_version": plan.vllm_version,
        "digest": plan.digest,
        "endpoint": plan.endpoint,
        **({} if plan.endpoint_kind == COMPLETIONS else {"endpoint_kind": plan.endpoint_kind}),
        "release": {
            "id": plan.release.id,
            "path": plan.release.path,
            "python": plan.release.python,
            "requirements": list(plan.release.requirements),
            "build": plan.cuda_variant,
            "build_assumed": plan.cuda_variant_assumed,
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
                "firewall": dataclasses.asdict(host.firewall),
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


def _weights(source: WeightsSource) -> dict[str, Any]:
    needed = round(source.gbit_per_s, 1) if source.kind == "download" else None
    shown = {"kind": source.kind, "bytes": source.bytes, "exact": source.exact, "origin": source.origin}
    return {**shown, "gbit_per_s": needed}


ASSUMED = ", assumed: a deploy takes what the oldest driver of the hosts runs; torch_backend fixes it"
GUARD = "/guard/"
"""In the path of every file of the guard's program."""


def as_text(plan: Plan, sources: Sequence[str] = ()) -> str:
    """Return the plan for reading from the top: what it serves, memory, hosts, order, notes.

    The head is printed whole; a host that resembles it is printed as its differences from it.

    Args:
        plan: to show.
        sources: files that its settings and its pin were read from.
    """
    lines = [
        f"{plan.recipe} as {plan.label} (strategy {plan.strategy}), vLLM {plan.vllm_version}",
        f"endpoint {plan.endpoint} · served as {plan.served_model_name}",
        f"serves {plan.serves}{f' (profile {plan.profile})' if plan.profile else ''}",
        *([f"weights {plan.weights.line(len(plan.hosts))}"] if plan.weights else []),
        f"group {plan.group} · digest {plan.digest} · release {plan.release.id}",
        f"reached by: {firewall.reach(plan.head.firewall)}",
        *([f"build {plan.cuda_variant}{ASSUMED if plan.cuda_variant_assumed else ''}"] if plan.cuda_variant else []),
        *([f"read {' · '.join(sources)}"] if sources else []),
    ]
    if plan.memory:
        lines += ["", "memory of one GPU", plan.memory.table()]
    for host in plan.hosts.values():
        lines += ["", _host_line(host)]
        lines += _differences(plan.head, host) if host.name != plan.head.name else _whole(plan, host)
    lines += ["", "order of bring-up"]
    lines += [f"  {number}. {', '.join(layer)}" for number, layer in enumerate(plan.order, 1)]
    if plan.warnings:
        lines += ["", "notes", *(f"  - {warning}" for warning in plan.warnings)]
    if plan.refused:
        lines += ["", "no deploy brings this plan to a host", *(f"  {line}" for line in plan.refused.splitlines())]
    return "\n".join(lines)


def _host_line(host: HostPlan) -> str:
    ranks = f" · DP ranks {host.dp_ranks[0]}-{host.dp_ranks[-1]}" if len(host.dp_ranks) > 1 else ""
    return f"{host.name} · {host.role} · node rank {host.node_rank}{ranks} · {host.address} · {host.gpus} x {host.gpu}"


def _whole(plan: Plan, host: HostPlan) -> list[str]:
    """Return a host's processes, files and units."""
    lines = []
    for process in host.processes:
        lines += _process(process)
    lines += ["", "    files", *(f"      {line}" for line in _files(host))]
    lines += [f"      {secret.mode} {secret.owner}:{secret.group} {secret.path} (secret)" for secret in plan.secrets]
    return [*lines, f"    units {' '.join(host.all_units)}"]


def _process(process: Process) -> list[str]:
    """Return a process's whole command and environment."""
    command = [f"    {line}" for line in command_lines(process.argv)]
    return ["", *command, "", *(f"    {line}" for line in _environment(process))]


def _environment(process: Process) -> list[str]:
    return [f"{key}={shlex.quote(value)}" for key, value in sorted(process.env.items())]


def _files(host: HostPlan) -> list[str]:
    """Return a host's files, one per line; the guard's program is one line."""
    lines, guard = [], [path for path in host.files if GUARD in path]
    for path, file in sorted(host.files.items()):
        if path not in guard:
            lines.append(f"{file.mode} {file.owner}:{file.group} {path}")
    if guard:
        directory, file = guard[0].split(GUARD)[0], host.files[guard[0]]
        program = guard[0].removeprefix(directory + GUARD).split("/")[0]
        lines.append(f"{file.mode} {file.owner}:{file.group} {directory}{GUARD}{program}/ ({len(guard)} files)")
    return lines


def _differences(head: HostPlan, host: HostPlan) -> list[str]:
    """Return what a host has otherwise than the head: flags, environment, files, units."""
    processes = {process.name: process for process in head.processes}
    lines, whole = [], []
    for process in host.processes:
        like = processes.pop(process.name, None)
        if like is None:
            whole += _process(process)
        else:
            changes = _changes(_words(like.argv), _words(process.argv))
            changes += _changes(_environment(like), _environment(process))
            lines += [f"{process.name}: {line}" for line in changes] if len(head.processes) > 1 else changes
    lines += [f"no {name}" for name in processes]
    lines += _changes(_files(head), _files(host))
    lines += _changes([f"unit {unit}" for unit in head.units], [f"unit {unit}" for unit in host.units])
    return [f"    as {head.name}{', but:' if lines or whole else ''}", *(f"      {line}" for line in lines), *whole]


def _changes(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Return the lines that are new in `after`, and those that it lacks where nothing took their place."""
    new = [line for line in after if line not in before]
    named = {_name(line) for line in new}
    return [*new, *(f"without {line}" for line in before if line not in after and _name(line) not in named)]


def _name(line: str) -> str:
    """Return what a line sets: the flag, the variable, the path."""
    return line.split("=")[0].split(" ")[0] if line.startswith("--") or "=" in line.split(" ")[0] else line


def _words(argv: Sequence[str]) -> list[str]:
    return [line.strip().removesuffix(" \\") for line in command_lines(argv)]


def command_lines(argv: Sequence[str]) -> list[str]:
    """Return a command as one would type it, one flag a line."""
    lines: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    last = len(lines) - 1
    return [("  " if i else "") + " ".join(words) + (" \\" if i < last else "") for i, words in enumerate(lines)]
