"""Notes about the engines on this host: which release is complete, which command lines its parser accepted."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from muster.on_host import places, safe_paths, whole_files

Json = dict[str, Any]

COMPLETE = ".muster-complete"
QUESTIONS = 2
"""Raised when the parser is asked more than before: what was accepted then is asked again."""


def release(root: str, requested: Json | None) -> Json:
    """Return {exists, complete, runs}: is the release there, complete, and has it a `vllm` to run?

    Args:
        root: where the file system begins.
        requested: `path` of the virtual environment and `spec`, which names its content.
    """
    if not requested:
        return {"exists": False, "complete": False, "runs": False}
    path = root + requested["path"]
    stamp = whole_files.read_object(os.path.join(path, COMPLETE))
    return {
        "exists": os.path.isdir(path),
        "complete": bool(stamp) and stamp.get("spec") == requested.get("spec"),
        "runs": os.access(os.path.join(path, "bin", "vllm"), os.X_OK),
    }


def accepted(root: str, requested: Json | None, argvs: Sequence[Sequence[str]]) -> list[bool]:
    """Return for each command line whether the parser of this very engine has accepted it before."""
    path = requested["path"] if requested else "/nowhere"
    # Notes that another user could have written are none.
    mine = safe_paths.private(root + places.ACCEPTED)
    return [mine and os.path.exists(stamp(root, path, argv)) for argv in argvs]


def note(root: str, path: str, argv: Sequence[str]) -> None:
    """Note that the engine at `path` accepts a command line."""
    safe_paths.make_private(root + places.ACCEPTED)
    whole_files.write_whole(stamp(root, path, argv), (json.dumps(argv) + "\n").encode(), 0o600)


def stamp(root: str, path: str, argv: Sequence[str]) -> str:
    """Return the path of the note that the engine installed at `path` accepts this command line."""
    engine = []
    records = glob.glob(glob.escape(root + path) + "/lib/python*/site-packages/vllm-*.dist-info/RECORD")
    for name in [*sorted(records), root + path + "/bin/vllm"]:
        if os.path.exists(name):
            engine.append([name[len(root) :], os.stat(name).st_mtime_ns, os.stat(name).st_size])
    digest = hashlib.sha256(json.dumps([QUESTIONS, path, engine, list(argv)]).encode()).hexdigest()
    return os.path.join(root + places.ACCEPTED, digest)
