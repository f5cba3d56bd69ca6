"""What muster noted about the engines on this host: which release is whole, which command line its parser took."""

import glob
import hashlib
import json
import os

from muster.host import common

COMPLETE = ".muster-complete"
ACCEPTED = "/var/lib/muster/accepted"


def release(root, wanted):
    """Return {exists, complete, runs} of a release: whether it is there, whole, and has a `vllm` to run.

    Args:
        root: where the file system begins.
        wanted: `path` of the virtual environment and `spec`, the digest of what should be in it.
    """
    if not wanted:
        return {"exists": False, "complete": False, "runs": False}
    path = root + wanted["path"]
    stamp = common.read_json(os.path.join(path, COMPLETE)) or {}
    return {
        "exists": os.path.isdir(path),
        "complete": bool(stamp) and stamp.get("spec") == wanted.get("spec"),
        "runs": os.access(os.path.join(path, "bin", "vllm"), os.X_OK),
    }


def accepted(root, wanted, argvs):
    """Return, for each command line, whether this very engine's parser has taken it before."""
    return [bool(wanted) and os.path.exists(stamp(root, wanted["path"], argv)) for argv in argvs]


def stamp(root, path, argv):
    """Return the path of the note that the engine at `path`, as installed now, takes this command line."""
    engine = []
    found = glob.glob(glob.escape(root + path) + "/lib/python*/site-packages/vllm-*.dist-info/RECORD")
    for name in [*sorted(found), root + path + "/bin/vllm"]:
        if os.path.exists(name):
            engine.append([name[len(root) :], os.stat(name).st_mtime_ns, os.stat(name).st_size])
    digest = hashlib.sha256(json.dumps([path, engine, list(argv)]).encode()).hexdigest()
    return os.path.join(root + ACCEPTED, digest)
