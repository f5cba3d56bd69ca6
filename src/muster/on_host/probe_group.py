"""A group's files, secrets, units and engine on this host; nothing is changed.

The host itself (GPUs, network, disks, ports) is the subject of `probe_machine` and `probe_gpus`.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from muster.on_host import (
    change_record,
    engine_stamps,
    file_facts,
    kept_plans,
    places,
    safe_paths,
    startable,
    systemd_units,
    whole_files,
)

Json = dict[str, Any]

_HELD_LIMIT = 65536


def main(request: Json) -> Json:
    """Return the state of everything on this host that a plan touches.

    Args:
        request: `group` (its name), `files` {path: planned sha256}, `secrets` [paths], `units` [names],
            `release` {path, spec}, `uv` (path), `argvs` [[argument]], `texts` (whether to return the text
            of differing files), `ready` (URL or None). `root` (tests): where the file system begins.
    """
    root = request.get("root", "")
    group = request.get("group", "")
    planned = request.get("files", {})
    units = present_units(root, group)
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "machine": os.uname().machine,
        "files": {
            path: file_facts.describe(root, path, sha, bool(request.get("texts"))) for path, sha in planned.items()
        },
        "secrets": {path: file_facts.describe(root, path, None, False) for path in request.get("secrets", ())},
        "stale": stale(root, group, set(planned) | set(request.get("secrets", ()))),
        "units": attempt(lambda: systemd_units.states(request.get("units", []) + units)),
        "groups": {**(groups_to_come(root, group) if group else {}), **other_groups(root, group)},
        "startable": startable.state(root, group, units),
        "changes": changes(root, group),
        "release": engine_stamps.release(root, request.get("release")),
        "uv": os.access(root + request.get("uv", "/nowhere"), os.X_OK),
        "accepted": engine_stamps.accepted(root, request.get("release"), request.get("argvs", ())),
        "ready": _ready(request.get("ready")),
        "run_free": free(root + "/run"),
        "kept": kept_plans.headers(root, group) if group else [],
        "members": members(root, group),
        "held": hold(f"{root}{places.state(group)}/held.json"),
    }


def _ready(url: str | None) -> bool | None:
    """Return whether the group is ready, where it is asked: on the head."""
    if not url:
        return None
    # HTTP takes longer to import than most of this probe takes to run.
    from muster.on_host import bounded_http

    return bounded_http.answers(url, 3)


def members(root: str, group: str) -> dict[str, str]:
    """Return host -> address of the deployed group as the guard here knows it; empty without one."""
    known = whole_files.read_object(f"{root}{places.config(group)}/guard.json").get("members")
    each = [one for one in known if isinstance(one, dict)] if isinstance(known, list) else []
    pairs = [(one.get("host"), one.get("address")) for one in each]
    return {host: address for host, address in pairs if isinstance(host, str) and isinstance(address, str)}


def hold(path: str) -> str:
    """Return why the guard keeps the group down, "" when it does not; the file is the engine user's to write."""
    reason = whole_files.read_object(path, _HELD_LIMIT).get("held")
    return reason[:_HELD_LIMIT] if isinstance(reason, str) else ""


def free(path: str) -> int | None:
    """Return the bytes that root may still write below a path; None where it cannot be read."""
    try:
        room = os.statvfs(path)
    except OSError:
        return None
    return room.f_bfree * room.f_frsize


def attempt(source: Callable[[], Any]) -> Any:
    """Return a source's value, or {"error": text}: one broken tool must not hide the rest."""
    try:
        return source()
    except Exception as error:
        return {"error": str(error) or type(error).__name__}


def stale(root: str, group: str, planned: set[str]) -> list[str]:
    """Return the group's files that no plan names: units, files in its directory, leftovers of an interrupted run."""
    if not group:
        return []
    files = []
    kept, own = kept_plans.directory(root, group), change_record.own_files(group)
    for directory, _, names in os.walk(root + places.config(group)):
        if directory == kept and safe_paths.private(kept):
            continue  # plans of earlier days, which no plan names
        files += [os.path.join(directory, name)[len(root) :] for name in names]
    files += [places.unit(name) for name in present_units(root, group)]
    files += [places.unit(name) for name in staged_units(root, group)]
    files += [path for path in places.FORMER if os.path.lexists(root + path)]
    return sorted(path for path in files if path not in planned and path not in own)


def changes(root: str, group: str) -> dict[str, Json]:
    """Return what this host knows of changes, by group: of each that is on this host, and of the one asked about."""
    names = {os.path.basename(os.path.dirname(path)) for path in glob.glob(f"{glob.escape(root)}{places.ETC}/*/")}
    return {name: change_record.state(name, root) for name in sorted((names | {group}) - {""})}


def staged_units(root: str, group: str) -> list[str]:
    """Return the unit files that an interrupted run staged and never renamed."""
    rule, others = re.compile(rf"\.({_unit_rule(group)})\.muster-new"), units_of_others(root, group)
    staged = [rule.fullmatch(name) for name in _listed(root + places.UNITS)]
    return [match.group(0) for match in staged if match and match.group(1) not in others]


def _unit_rule(group: str) -> str:
    return rf"muster-{re.escape(group)}(-(ray|vllm|weights))?\.(service|socket|timer|slice)"


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def present_units(root: str, group: str) -> list[str]:
    """Return a group's unit files on this host: those of its plan.json, and by the naming rule those of nobody else.

    The unit of the group `x-vllm` has the name that a plain rank of the group `x` would have.
    """
    if not group:
        return []
    rule, names = re.compile(_unit_rule(group)), _listed(root + places.UNITS)
    own, others = _units_of(root, group), units_of_others(root, group)
    return sorted(name for name in names if name in own or (rule.fullmatch(name) and name not in others))


def units_of_others(root: str, group: str) -> set[str]:
    """Return the units that the plan.json of other groups name, and the first unit of each group that has none yet."""
    names = {os.path.basename(path) for path in glob.glob(glob.escape(root) + places.config("*"))} - {group}
    return {unit for name in names for unit in (_units_of(root, name) or {f"muster-{name}.service"})}


def _units_of(root: str, group: str) -> set[str]:
    manifest = whole_files.read_object(f"{root}{places.config(group)}/plan.json")
    lists = [manifest.get(key) for key in ("units", "beside")]
    return {unit for units in lists if isinstance(units, list) for unit in units if isinstance(unit, str)}


def other_groups(root: str, group: str) -> dict[str, Json]:
    """Return the plan.json of the other groups on this host, by name."""
    groups = {}
    for path in glob.glob(glob.escape(root) + places.config("*") + "/plan.json"):
        name = os.path.basename(os.path.dirname(path))
        manifest = whole_files.read_json(path)
        if name != group and isinstance(manifest, dict):
            groups[name] = manifest
    return groups


def groups_to_come(root: str, group: str) -> dict[str, Json]:
    """Return the staged plan.json of other groups whose change was cut: this host may put it in place by itself."""
    groups = {}
    for path in glob.glob(glob.escape(root) + change_record.record_path("*")):
        name = os.path.basename(os.path.dirname(path))
        manifest = whole_files.read_object(root + places.staged(f"{places.config(name)}/plan.json"))
        if name != group and manifest and whole_files.read_object(path).get("command") != "remove":
            groups[name] = manifest
    return groups
