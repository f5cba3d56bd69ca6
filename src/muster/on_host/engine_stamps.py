"""What muster noted about the engines on this host: which release is whole, which command line its parser took."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from muster.on_host import whole_files

Json = dict[str, Any]

COMPLETE = ".muster-complete"
ACCEPTED = "/var/lib/muster/accepted"


def release(root: str, wanted: Json | None) -> Json:
    """Return {exists, complete, runs} of a release: whether it is there, whole, and has a `vllm` to run.

    Args:
        root: where the file system begins.
        wanted: `path` of the virtual environment and `spec`, a name of what should be in it.
    """
    if not wanted:
        return {"exists": False, "complete": False, "runs": False}
    path = root + wanted["path"]
    stamp = whole_files.read_json(os.path.join(path, COMPLETE)) or {}
    return {
        "exists": os.path.isdir(path),
        "complete": bool(stamp) and stamp.get("spec") == wanted.get("spec"),
        "runs": os.access(os.path.join(path, "bin", "vllm"), os.X_OK),
    }


def accepted(root: str, wanted: Json | None, argvs: Sequence[Sequence[str]]) -> list[bool]:
    """Return, for each command line, whether this very engine's parser has taken it before."""
    path = wanted["path"] if wanted else "/nowhere"
    return [os.path.exists(stamp(root, path, argv)) for argv in argvs]


def stamp(root: str, path: str, argv: Sequence[str]) -> str:
    """Return the path of the note that the engine at `path`, as installed now, takes this command line."""
    engine = []
    found = glob.glob(glob.escape(root + path) + "/lib/python*/site-packages/vllm-*.dist-info/RECORD")
    for name in [*sorted(found), root + path + "/bin/vllm"]:
        if os.path.exists(name):
            engine.append([name[len(root) :], os.stat(name).st_mtime_ns, os.stat(name).st_size])
    digest = hashlib.sha256(json.dumps([path, engine, list(argv)]).encode()).hexdigest()
    return os.path.join(root + ACCEPTED, digest)
