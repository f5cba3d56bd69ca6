"""What a host was before muster changed it: kept once, put back when muster leaves.

Of kernel settings their values, of directories that muster shares with others whether they were there.
"""

from __future__ import annotations

import json
import os
from typing import Any

from muster.on_host import places, safe_paths, whole_files

_LIMIT = 65536


def keep(item: dict[str, Any], at: str = "") -> None:
    """Keep what the host has where a planned file goes; what is kept already stays.

    Args:
        item: the file, `path` and `text`.
        at: where the file system begins (tests).
    """
    known = _record(at)
    made, settings = set(known["made"]), dict(known["sysctl"])
    directory = os.path.dirname(item["path"])
    if directory in places.SHARED_DIRECTORIES and not os.path.isdir(at + directory):
        made.add(directory)
    if item["path"] == places.SYSCTL:
        untouched = not os.path.exists(at + places.SYSCTL)
        for key, planned in _settings(item["text"]).items():
            value = _value(key, at)
            # Where the file is there already, the planned value may be muster's own.
            if value is not None and (untouched or value != planned):
                settings.setdefault(key, value)
    record = {"made": sorted(made), "sysctl": settings}
    if record != known:
        safe_paths.make_directory(os.path.dirname(at + places.BEFORE))
        whole_files.write_whole(at + places.BEFORE, (json.dumps(record, indent=1) + "\n").encode())


def restore_settings(at: str = "") -> list[str]:
    """Put kernel settings back; return a note on each that keeps muster's value until the next boot.

    Args:
        at: where the file system begins (tests).
    """
    before, notes = _record(at)["sysctl"], []
    for key, planned in _settings(whole_files.read_start(at + places.SYSCTL) or "").items():
        if _value(key, at) != planned:
            continue  # somebody has set it since
        try:
            with open(_path(key, at), "w", encoding="ascii") as handle:
                handle.write(f"{int(before[key])}\n")
        except (KeyError, ValueError, TypeError, OSError):
            notes.append(f"{key} stays {planned} until the next boot: what it was before is not known here")
    return notes


def made_directories(at: str = "") -> list[str]:
    """Return the shared directories that were not there before."""
    return [path for path in places.SHARED_DIRECTORIES if path in _record(at)["made"]]


def _record(at: str) -> dict[str, Any]:
    record = whole_files.read_object(at + places.BEFORE, _LIMIT)
    made, settings = record.get("made"), record.get("sysctl")
    return {
        "made": made if isinstance(made, list) else [],
        "sysctl": settings if isinstance(settings, dict) else {},
    }


def _settings(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def _value(key: str, at: str) -> str | None:
    text = whole_files.read_start(_path(key, at), 100)
    return None if text is None else text.strip()


def _path(key: str, at: str) -> str:
    return os.path.join(at + "/proc/sys", *key.split("."))
