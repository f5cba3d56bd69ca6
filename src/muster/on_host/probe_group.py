"""What a group has on a host now, read in one go and changing nothing: files, secrets, units, the engine.

What the host itself is like (GPUs, network, disks, ports) is for `preflight` and `machine` to say.
"""

from __future__ import annotations

import glob
import grp
import json
import os
import platform
import pwd
import re
import stat
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from muster.on_host import engine_stamps, systemd_units, whole_files

Json = dict[str, Any]

_TEXT_LIMIT = 65536
# What earlier versions wrote for all groups of a host, and a file of each group's own has replaced.
_FORMER = ("/etc/tmpfiles.d/muster.conf",)


def main(request: Json) -> Json:
    """Return the state of everything that a plan touches on this host.

    Args:
        request: `group` (its name), `files` {path: sha256 wanted}, `secrets` [paths], `units` [names],
            `release` {path, spec}, `uv` (path), `argvs` [[argument]], `texts` (whether to return what differing files
            hold), `ready` (URL or None). `root` (tests): where the file system begins.
    """
    root = request.get("root", "")
    group = request.get("group", "")
    wanted = request.get("files", {})
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "files": {path: describe(root, path, sha, bool(request.get("texts"))) for path, sha in wanted.items()},
        "secrets": {path: describe(root, path, None, False) for path in request.get("secrets", ())},
        "stale": stale(root, group, set(wanted) | set(request.get("secrets", ()))),
        "units": attempt(lambda: systemd_units.states(request.get("units", []) + present_units(root, group))),
        "groups": other_groups(root, group),
        "release": engine_stamps.release(root, request.get("release")),
        "uv": os.access(root + request.get("uv", "/nowhere"), os.X_OK),
        "accepted": engine_stamps.accepted(root, request.get("release"), request.get("argvs", ())),
        "ready": answers(request.get("ready")),
        "held": str((whole_files.read_json(f"{root}/var/lib/muster/{group}/held.json") or {}).get("held") or ""),
    }


def attempt(source: Callable[[], Any]) -> Any:
    """Return what a source says, or {"error": text}: one broken tool must not hide the rest."""
    try:
        return source()
    except Exception as error:
        return {"error": str(error) or type(error).__name__}


def describe(root: str, path: str, wanted: str | None, text: bool) -> Json:
    """Return digest, mode and owners of one path; {"kind": "missing"} where there is nothing."""
    try:
        found = os.lstat(root + path)
    except (FileNotFoundError, NotADirectoryError):
        return {"kind": "missing"}
    if not stat.S_ISREG(found.st_mode):
        return {"kind": "link" if stat.S_ISLNK(found.st_mode) else "other"}
    told = {
        "kind": "file",
        "sha256": whole_files.sha256(root + path),
        "mode": format(stat.S_IMODE(found.st_mode), "o"),
        "owner": _name(pwd.getpwuid, found.st_uid),
        "group": _name(grp.getgrgid, found.st_gid),
    }
    if text and wanted and told["sha256"] != wanted and found.st_mode & 0o004:
        with open(root + path, encoding="utf-8", errors="replace") as handle:
            told["text"] = handle.read(_TEXT_LIMIT)
    return told


def _name(lookup: Callable[[int], Sequence[Any]], number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def stale(root: str, group: str, wanted: set[str]) -> list[str]:
    """Return the files of this group that no plan names: its units, what lies in its directory, what a cut run left."""
    if not group:
        return []
    found = []
    for directory, _, names in os.walk(root + "/etc/muster/" + group):
        found += [os.path.join(directory, name)[len(root) :] for name in names]
    found += ["/etc/systemd/system/" + name for name in present_units(root, group)]
    found += ["/etc/systemd/system/" + name for name in staged_units(root, group)]
    found += [path for path in _FORMER if os.path.lexists(root + path)]
    return sorted(path for path in found if path not in wanted)


def staged_units(root: str, group: str) -> list[str]:
    """Return the unit files of a group that a run staged and, cut off, never put in place."""
    rule = re.compile(rf"\.{_unit_rule(group)}\.muster-new")
    return [name for name in _listed(root + "/etc/systemd/system") if rule.fullmatch(name)]


def _unit_rule(group: str) -> str:
    return rf"muster-{re.escape(group)}(-(ray|vllm))?\.(service|socket|timer|slice)"


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def present_units(root: str, group: str) -> list[str]:
    """Return the unit files of a group on this host, by the group's own list and by the naming rule."""
    if not group:
        return []
    rule, names = re.compile(_unit_rule(group)), _listed(root + "/etc/systemd/system")
    listed = (whole_files.read_json(root + f"/etc/muster/{group}/plan.json") or {}).get("units", [])
    return sorted(name for name in names if rule.fullmatch(name) or name in listed)


def other_groups(root: str, group: str) -> dict[str, Json]:
    """Return what the other groups on this host say of themselves, by name."""
    found = {}
    for path in glob.glob(glob.escape(root) + "/etc/muster/*/plan.json"):
        name = os.path.basename(os.path.dirname(path))
        told = whole_files.read_json(path)
        if name != group and isinstance(told, dict):
            found[name] = told
    return found


def answers(url: str | None) -> bool | None:
    """Return whether a URL answers 200 at once, or None when there is none to ask."""
    if not url:
        return None
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=3) as response:
            return bool(response.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    print(json.dumps(main({"group": ""}), indent=1))
