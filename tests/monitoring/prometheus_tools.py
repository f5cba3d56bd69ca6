"""Prometheus's own tools, which judge what is rendered: promtool and amtool, as script/setup unpacks them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests import required

UNPACKED = Path(__file__).parents[2] / ".venv" / "prometheus-tools"


def run(tool: str, *words: str | Path, cwd: Path) -> str:
    """Run a tool and return all it prints; it must succeed. Without it the test is skipped, or fails where CI needs it.

    Args:
        tool: `promtool` or `amtool`.
        words: its arguments.
        cwd: working directory.
    """
    path = shutil.which(tool, path=f"{UNPACKED}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        required.lacking(f"there is no {tool}; script/setup brings it on Debian and Ubuntu")
    ran = subprocess.run(
        [path, *map(str, words)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout
