"""The wheel alone, in an empty environment and an empty directory, plans what the clone plans."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UV = str(Path(sys.executable).parent / "uv")

pytestmark = pytest.mark.nightly


def run(*words: str | Path, at: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(word) for word in words], cwd=at, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def done(*words: str | Path, at: Path) -> str:
    ran = run(*words, at=at)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the commands of an environment that holds the wheel and nothing of the clone."""
    place = tmp_path_factory.mktemp("wheel")
    done(UV, "build", "--wheel", "--out-dir", place, ROOT, at=place)
    (wheel,) = place.glob("vllm_muster-*.whl")
    done(UV, "venv", "--python", sys.executable, place / "venv", at=place)
    done(UV, "pip", "install", "--python", place / "venv" / "bin" / "python", wheel, at=place)
    return place / "venv" / "bin"


def test_an_inventory_copied_from_the_package_is_planned_as_in_the_clone(installed: Path, tmp_path: Path) -> None:
    missing = run(installed / "muster", "plan", "mine.py", "kimi-k2-instruct", at=tmp_path)
    assert missing.returncode == 2
    examples = Path(missing.stderr.partition("copy one of ")[2].partition("/*.py")[0])
    assert {path.name for path in examples.glob("*.py")} == {path.name for path in ROOT.glob("inventories/*.py")}
    shutil.copy(examples / "h800-16.py", tmp_path / "mine.py")
    words = ("plan", "mine.py", "kimi-k2-instruct", "--format", "json")
    planned = done(installed / "muster", *words, at=tmp_path)
    assert planned == done(Path(sys.executable).parent / "muster", *words, at=tmp_path)
    assert '"digest"' in planned


def test_the_literal_command_takes_the_deploy_from_the_package(installed: Path, tmp_path: Path) -> None:
    inventory = (ROOT / "inventories" / "h800-16.py").read_text()
    (tmp_path / "mine.py").write_text(
        inventory.replace("192.0.2.", "127.0.0.").replace('"eth1"', '"eth1", "ssh_port": 1')
    )
    ran = run(installed / "pyinfra", "-y", "mine.py", "muster.deploys.serve.serve", "kimi-k2-instruct", at=tmp_path)
    assert ran.returncode != 0
    assert "Unable to connect to port 1 on 127.0.0.11" in ran.stderr
    assert "Traceback" not in ran.stderr
