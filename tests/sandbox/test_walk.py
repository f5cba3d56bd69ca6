"""The recorded walk is one that can be walked: benchmarks/walk.py from a clone to nothing left, with the stand-in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from muster.sandbox import tiny_model
from tests import standin
from tests.conftest import Boot

REPOSITORY = Path(__file__).parents[2]
SETTINGS = f"""
engine_path = {standin.PATH!r}
engine_requirements, overrides, find_links = [], [], []
vllm_version, torch_backend, extra_args, extra_env = "0.33.0", None, [], {{}}
model_shape = {dict(tiny_model.SHAPE)!r}
allow_unpinned_code = True
model = None
"""


@pytest.mark.sandbox
@pytest.mark.nightly
def test_every_command_of_the_walk_does_what_the_record_says(sandbox: Boot, tmp_path: Path) -> None:
    box = sandbox("walk", 2)
    for host in box.hosts:
        standin.place(box.tree(host.name))
    settings, record = tmp_path / "settings.py", tmp_path / "walk.md"
    settings.write_text(SETTINGS)
    words = ["--venv", sys.prefix, "--settings", settings, "--name", box.name, "--out", record]
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks/walk.py", *words], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = record.read_text()
    assert text.count("\n## ") == 7
    assert "muster remove inventories/sandbox.py --everything -y" in text
    assert str(tmp_path) not in text
    assert "muster-walk-" not in text
