"""`nvidia-smi` that also keeps its output: all hosts share this machine's cores, and are asked often.

The host's `nvidia-smi` runs this only when no output is kept for these arguments and this JSON file;
MUSTER_SANDBOX_KEEP names the file to keep it in.
"""

from __future__ import annotations

import io
import os
import sys

from . import gpusim, nvidia_smi

MOVING = "timestamp"
"""The one field that differs each time."""


def main(argv: list[str]) -> int:
    printed, stdout = io.StringIO(), sys.stdout
    sys.stdout = printed
    try:
        status = nvidia_smi.main(argv)
    finally:
        sys.stdout = stdout
        stdout.write(printed.getvalue())
    if status == 0 and not gpusim.load().get("commands") and MOVING not in " ".join(argv):
        _keep(os.environ["MUSTER_SANDBOX_KEEP"], printed.getvalue())
    return status


def _keep(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(f"{path}.{os.getpid()}", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(file.name, path)
    except PermissionError:
        pass  # only root's answers are kept
