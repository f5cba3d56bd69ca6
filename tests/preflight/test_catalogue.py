"""Names of checks are stable, documented, and all of them are used."""

from __future__ import annotations

import re
from pathlib import Path

from muster.guard.host_judge import DEVICE_FIELDS
from muster.preflight import catalogue

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src/muster/preflight"


def test_documentation_carries_the_catalogue() -> None:
    assert catalogue.as_markdown() in (ROOT / "docs/preflight.md").read_text(encoding="utf-8")


def test_every_check_has_a_name_that_the_sources_use_and_none_is_missing() -> None:
    # smi.py and DEVICE_FIELDS spell fields of nvidia-smi, whose names look alike.
    paths = [*SOURCES.rglob("*.py"), ROOT / "src/muster/guard/host_judge.py"]
    texts = [path.read_text() for path in paths if path.name not in ("catalogue.py", "smi.py")]
    subjects = "|".join(sorted({name.partition(".")[0] for name in catalogue.CHECKS}))
    used = {name for text in texts for name in re.findall(rf'"((?:{subjects})\.[a-z_]+)"', text)}
    parity = {name for name in catalogue.CHECKS if name.startswith("parity.")}
    assert (used | parity) - set(DEVICE_FIELDS) == set(catalogue.CHECKS)


def test_every_check_says_when_it_does_not_pass() -> None:
    assert all(check.looks_at and (check.warns or check.fails) for check in catalogue.CHECKS.values())
