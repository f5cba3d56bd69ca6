"""What systemd-analyze says of units that are on no host: how exposed they are, and what is wrong with them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path


def exposure(unit: Path) -> float:
    """Return the overall exposure of a unit's file, from 0 (safe) to 10."""
    command = ["systemd-analyze", "security", "--offline=true", str(unit)]
    rating = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", rating)
    assert found, rating
    return float(found[1])


def complaints(units: Sequence[Path]) -> list[str]:
    """Return what systemd says of units' files, but for programs and files that are not on this machine."""
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, units)]
    seen = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in (seen.stdout + seen.stderr).splitlines() if "is not executable" not in line]
    return [line for line in lines if any(unit.stem in line for unit in units)]
