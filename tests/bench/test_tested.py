"""docs/tested.md is what the kept results say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_table_of_what_was_run_is_up_to_date() -> None:
    check = subprocess.run([sys.executable, ROOT / "benchmarks" / "tested.py", "--check"], check=False)
    assert check.returncode == 0, "run benchmarks/tested.py"


def test_the_default_engine_was_run_on_gpus() -> None:
    from muster.spec.settings import Settings

    assert f"| vLLM {Settings().vllm_version} |" in (ROOT / "docs" / "tested.md").read_text(encoding="utf-8")
