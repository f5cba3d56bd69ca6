"""`nvidia-smi`, which also keeps what it answered: hosts of one machine share its cores, and are asked a lot.

Run by the host's `nvidia-smi` only where nothing is kept yet; MUSTER_SANDBOX_KEEP names the file, which goes by the
words of the command and by the JSON file that it answers from.
"""

from __future__ import annotations

import io
import os
import sys

from . import gpusim, nvidia_smi

MOVING = "timestamp"
"""The one field that is another one each time."""


def main(argv: list[str]) -> int:
    told, stdout = io.StringIO(), sys.stdout
    sys.stdout = told
    try:
        status = nvidia_smi.main(argv)
    finally:
        sys.stdout = stdout
        stdout.write(told.getvalue())
    if status == 0 and not gpusim.load().get("commands") and MOVING not in " ".join(argv):
        _keep(os.environ["MUSTER_SANDBOX_KEEP"], told.getvalue())
    return status


def _keep(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(f"{path}.{os.getpid()}", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(file.name, path)
    except PermissionError:
        pass  # only root's answers are kept
