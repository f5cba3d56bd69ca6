"""Services of the distribution with files of muster's: compared, checked by their own tools, written, and loaded."""

from __future__ import annotations

import grp
import os
import shutil
import tempfile
from typing import Any

from muster.on_host import file_facts, places, run_command, safe_paths, systemd_units, whole_files

Json = dict[str, Any]

_SECONDS = 120


def main(request: Json) -> Json:
    """Compare, or put what differs in place.

    Args:
        request: `do`: `compare` (change nothing) or `place`. `files` [{path, text, sha256, mode, owner, group}], all
            root's; `units` {unit: [path]}: units to enable and start, and the files after whose change each is loaded
            again. `checks` [argv]: what must succeed before anything is written; `{tree}` in it is a copy of the files
            below `tree`, as they will be.

    Returns:
        {changed: [path], units: [unit]}: what differs, and the units that are not both enabled and active.

    Raises:
        OSError: a check failed, and nothing was changed; or a unit did not start.
    """
    changed = [item["path"] for item in request["files"] if not file_facts.is_as_planned("", item)]
    idle = _idle(request["units"])
    if request["do"] == "place":
        if changed:
            _check(request)
        for item in request["files"]:
            if item["path"] in changed:
                safe_paths.make_directory(os.path.dirname(item["path"]))
                text = item["text"].encode()
                whole_files.write_whole(item["path"], text, int(item["mode"], 8), 0, _gid(item["group"]))
        if any(path.startswith(places.UNITS + "/") for path in changed):
            systemd_units.daemon_reload()
        _load(request["units"], changed, idle)
    return {"changed": changed, "units": idle}


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(f"there is no group {name}; install the package that makes it") from None


def _idle(units: Json) -> list[str]:
    shown = systemd_units.show(list(units), "ActiveState,UnitFileState")
    return [
        name
        for name in units
        if shown.get(name, {}).get("ActiveState") != "active" or shown[name].get("UnitFileState") != "enabled"
    ]


def _check(request: Json) -> None:
    """Have the services' own tools look at a copy of the files before one is written."""
    if not request["checks"]:
        return
    tree = tempfile.mkdtemp(prefix="muster-check-", dir="/run")  # it may hold a key, and only root reads it
    try:
        for item in request["files"]:
            if item["path"].startswith(request["tree"] + "/"):
                path = tree + item["path"][len(request["tree"]) :]
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "w", encoding="utf-8") as file:
                    file.write(item["text"])
        for argv in request["checks"]:
            run_command.must([word.replace("{tree}", tree) for word in argv], _SECONDS)
    finally:
        shutil.rmtree(tree)


def _load(units: Json, changed: list[str], idle: list[str]) -> None:
    for name, paths in units.items():
        if name in idle:
            run_command.must(["systemctl", "enable", "--quiet", "--", name], _SECONDS)
            run_command.must(["systemctl", "restart", "--", name], _SECONDS)
        elif set(paths) & set(changed):
            # A program reads its command line only when it starts.
            starts = [path for path in paths if path.startswith(("/etc/default/", places.UNITS))]
            verb = "restart" if set(starts) & set(changed) else "reload-or-restart"
            run_command.must(["systemctl", verb, "--", name], _SECONDS)
