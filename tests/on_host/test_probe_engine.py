"""An installed engine, read from its files, and its import."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from muster.on_host import probe_engine


def release(root: Path) -> Path:
    """Make the files that an installed engine is told by."""
    packages = root / "lib/python3.12/site-packages"
    for name in ("vllm-0.33.0.dist-info", "torch-2.13.0+cu130.dist-info", "nvidia_nccl_cu13-2.28.9.dist-info",
                 "ray-2.60.0.dist-info", "torchvision-0.1.dist-info"):  # fmt: skip
        (packages / name).mkdir(parents=True)
    (packages / "torch").mkdir()
    (packages / "torch/version.py").write_text(
        "__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\nhip = None\n"
    )
    (root / "pyvenv.cfg").write_text("home = /x\nversion_info = 3.12.8\n")
    return root


def test_installed_engine_is_read_without_importing_it(tmp_path: Path) -> None:
    found = probe_engine.main({"path": str(release(tmp_path))})["release"]
    assert found["versions"] == {"vllm": "0.33.0", "torch": "2.13.0+cu130", "nccl": "2.28.9", "ray": "2.60.0"}
    assert (found["cuda"], found["python"]) == ("13.0", "3.12.8")
    assert probe_engine.main({"path": str(tmp_path / "none")})["release"] is None


@pytest.mark.usefixtures("as_myself")
def test_import_is_tried_with_the_release_s_python(tmp_path: Path) -> None:
    python = release(tmp_path) / "bin/python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\necho 'ImportError: libcudart.so.13: cannot open' >&2\nexit 1\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    found = probe_engine.main({"path": str(tmp_path), "import": 5})["imported"]
    assert found == {"error": "ImportError: libcudart.so.13: cannot open"}
    python.write_text('#!/bin/sh\necho noise\necho \'{"vllm": "0.33.0"}\'\n')
    assert probe_engine.main({"path": str(tmp_path), "import": 5})["imported"] == {"value": {"vllm": "0.33.0"}}


def test_files_digest_and_revision(tmp_path: Path) -> None:
    unit = tmp_path / "muster-g.service"
    unit.write_text("[Service]\nEnvironment=MUSTER_GROUP=g MUSTER_DIGEST=0123456789abcdef\n")
    refs = tmp_path / "hub/models--o--m/refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text("c" * 40)
    gone = str(tmp_path / "gone")
    found = probe_engine.main(
        {"files": [str(unit), gone], "model": {"cache": str(tmp_path / "hub"), "repository": "o/m"}}
    )
    assert found["files"][gone] is None
    assert len(found["files"][str(unit)]) == 64
    assert (found["digest"], found["revision"]) == ("0123456789abcdef", "c" * 40)
