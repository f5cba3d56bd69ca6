"""What differs between two kept plans of one group: settings, command lines by flag, files. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Kept = Mapping[str, Any]

GUARD = "/guard/"
"""In the path of every file of the guard's program."""
MANIFEST = "/plan.json"
_MISSING = object()


def differences(old: Mapping[str, Kept], new: Mapping[str, Kept]) -> list[str]:
    """Return the differences as lines of a unified diff; empty where the plans are the same.

    Args:
        old, new: host -> the plan as that host keeps it.

    Settings are the same on every host; command lines and files of further hosts are left out where they differ in the
    same way as the first host's.
    """
    hosts = list(dict.fromkeys([*old, *new]))
    first_old, first_new = next(iter(old.values()), {}), next(iter(new.values()), {})
    lines = _settings(first_old.get("settings", {}), first_new.get("settings", {}))
    if list(first_old.get("hosts", ())) != list(first_new.get("hosts", ())):
        lines += [f"-hosts {', '.join(first_old.get('hosts', ()))}", f"+hosts {', '.join(first_new.get('hosts', ()))}"]
    said: set[tuple[str, ...]] = set()
    for host in hosts:
        one, other = old.get(host, {}), new.get(host, {})
        for block in (*_commands(host, one, other), *_secrets(host, one, other), *_files(host, one, other)):
            changed = tuple(line for line in block if line[:1] in "+-" and line[:3] not in ("+++", "---"))
            if changed not in said:
                said.add(changed)
                lines += block
    return lines


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ; one that is not there is as muster sets it by itself."""
    lines = []
    for name in sorted({*old, *new}):
        if old.get(name, _MISSING) != new.get(name, _MISSING):
            lines += [f"-{name} = {json.dumps(old[name])}"] if name in old else []
            lines += [f"+{name} = {json.dumps(new[name])}"] if name in new else []
    return ["--- settings", "+++ settings", *lines] if lines else []


def _commands(host: str, old: Kept, new: Kept) -> Iterator[list[str]]:
    """Yield the flags by which the command lines of each unit differ."""
    one, other = _argvs(old), _argvs(new)
    for name in dict.fromkeys([*one, *other]):
        before, after = by_flag(one.get(name, ())), by_flag(other.get(name, ()))
        if before != after:
            yield [*_title(f"{host}: {name}"), *_unified(before, after)]


def _argvs(plan: Kept) -> dict[str, Sequence[str]]:
    processes = plan.get("verify", {}).get("processes", ())
    return {f"{process['unit']}: {process['argv'][0]}": process["argv"] for process in processes if process["argv"]}


def by_flag(argv: Sequence[str]) -> list[str]:
    """Return a command line as one line per flag with its values."""
    lines: list[str] = []
    for word in argv:
        if word.startswith("--") or not lines:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return lines


def _secrets(host: str, old: Kept, new: Kept) -> Iterator[list[str]]:
    """Yield the secrets that differ, by their digests."""
    one, other = old.get("secrets", {}), new.get("secrets", {})
    for path in sorted({*one, *other}):
        if one.get(path) != other.get(path):
            before = [f"SHA-256 {one[path][:16]}…"] if path in one else []
            after = [f"SHA-256 {other[path][:16]}…"] if path in other else []
            yield [*_title(f"{host}: {path} (secret)"), *_unified(before, after)]


def _files(host: str, old: Kept, new: Kept) -> Iterator[list[str]]:
    """Yield the files that differ; the guard's program as one line, plan.json, which repeats the plan, not at all."""
    one, other = old.get("files", {}), new.get("files", {})
    programs = [{path.partition(GUARD)[2][:12] for path in files if GUARD in path} for files in (one, other)]
    if programs[0] != programs[1]:
        yield [*_title(f"{host}: the guard's program"), *_unified(sorted(programs[0]), sorted(programs[1]))]
    for path in sorted({*one, *other}):
        if GUARD in path or path.endswith(MANIFEST):
            continue
        before, after = one.get(path, {}), other.get(path, {})
        if before.get("text") != after.get("text"):
            texts = (before.get("text", "").splitlines(), after.get("text", "").splitlines())
            yield [*_title(f"{host}: {path}"), *_unified(*texts)]
        elif _access(before) != _access(after):
            yield [*_title(f"{host}: {path}"), f"-{_access(before)}", f"+{_access(after)}"]


def _access(file: Mapping[str, Any]) -> str:
    return f"{file.get('mode')} {file.get('owner')}:{file.get('group')}"


def _title(name: str) -> list[str]:
    return [f"--- {name}", f"+++ {name}"]


def _unified(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Return a unified diff without its two title lines."""
    return list(difflib.unified_diff(before, after, lineterm="", n=2))[2:]
