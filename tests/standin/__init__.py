"""A stand-in for vLLM, for tests where seconds matter: the same command line, ports and failures, no model.

It lies on a host like a release's virtual environment (`/opt/standin`), so that `engine_path` takes it. It fails as
the real one was seen to:

- the head waits for its headless ranks, for ever when a rank of an earlier life is still around;
- a headless rank outlives its head; killed children's workers outlive their parents (sessions of their own);
- `/health` says 200 when a headless rank is dead; requests to that rank hang, the others are answered, and starting
  the rank again heals nothing;
- with `--enable-expert-parallel` the first request after a rank's death fails, then the head ends with status 0;
- with `--nnodes`, a dead follower leaves `/health` at 200 while every request hangs.

Knobs, as environment variable or as file in /etc/standin: STANDIN_START_DELAY (`start_delay`, seconds an engine takes
to start, 1), STANDIN_CRASH (`crash`, text: end while starting with a traceback that says it), STANDIN_CRASH_IF
(`crash_if`, text: only with a command line that holds it), STANDIN_TOKEN_SECONDS (`token_seconds`, seconds a step
takes, 0.002), STANDIN_IGNORE_TERM (`ignore_term`).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from muster.sandbox import serving_settings

PATH = "/opt/standin"
PACKAGE = Path(__file__).resolve().parent / "package"

_SCRIPT = f"""\
#!{PATH}/bin/python
import sys
from vllm.entrypoints.cli.main import main
sys.exit(main())
"""


def place(tree: Path, *, version: str = "0.33.0", python: str | None = None, cuda: str = "13.0") -> str:
    """Put the stand-in into a host's root directory and return its path on the host.

    Args:
        tree: root directory of the host (`Sandbox.tree`).
        version: of vLLM that it claims to be.
        python: the host's Python version ("3.11"); read from the tree when None.
        cuda: that its PyTorch claims to be built for.
    """
    minor = python or serving_settings.host_python(tree) or "3.11"
    target = tree / PATH.lstrip("/")
    if target.is_dir():
        shutil.rmtree(target)
    site = target / "lib" / f"python{minor}" / "site-packages"
    shutil.copytree(PACKAGE, site, ignore=shutil.ignore_patterns("__pycache__"))
    (site / "torch/version.py").write_text(f'__version__ = "2.13.0"\ncuda = "{cuda}"\n')
    for name, number in (("vllm", version), ("torch", "2.13.0")):
        info = site / f"{name}-{number}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
        (info / "RECORD").write_text("")
    binaries = target / "bin"
    binaries.mkdir()
    for name in ("python", "python3"):
        (binaries / name).symlink_to(f"/usr/bin/python{minor}")
    (binaries / "vllm").write_text(_SCRIPT)
    (binaries / "vllm").chmod(0o755)
    home = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {minor}.0\n"
    (target / "pyvenv.cfg").write_text(home)
    return PATH
