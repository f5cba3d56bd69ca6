"""The uv that goes to the hosts: the control machine's own where it fits, one for their platform otherwise."""

from __future__ import annotations

import base64
import os
import platform
import subprocess
import sys
import zlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

import uv

from muster import resources
from muster.errors import Refusal
from muster.on_host.places import PYTHON, UV, UV_CACHE


def release_version() -> str:
    """Return the version of uv that muster was installed with; the hosts get the same."""
    return version("uv")


def path_on_hosts(root: str) -> str:
    """Return the path of uv on a host; an executable that somebody put there by hand is used as it is."""
    return f"{root}/{UV}/{release_version()}/uv"


def places(root: str) -> dict[str, str]:
    """Return where uv, its Pythons and its cache are on a host, as the programs that install take them."""
    return {"uv": path_on_hosts(root), "python_dir": f"{root}/{PYTHON}", "cache_dir": UV_CACHE}


@cache
def payload(machine: str) -> str:
    """Return uv for a host, deflated and in base64.

    Args:
        machine: the host's `uname -m`.

    Raises:
        Refusal: there is no uv for such hosts.
    """
    binary = _binary(machine).read_bytes()
    return base64.b64encode(zlib.compress(binary, 1)).decode()


def _binary(machine: str) -> Path:
    own = Path(os.fsdecode(uv.find_uv_bin()))
    if sys.platform == "linux" and platform.machine() == machine:
        return own
    target = resources.cache() / f"uv-{release_version()}-{machine}"
    binary = target / "bin" / "uv"
    if not binary.is_file():
        wheel = ["--python-platform", f"{machine}-manylinux_2_28", "--no-deps", f"uv=={release_version()}"]
        command = [str(own), "pip", "install", "--target", str(target), *wheel]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Refusal(
                f"no uv {release_version()} for {machine} hosts: {done.stderr.strip()}",
                needed="a uv that runs on the hosts, to install the engine with",
                fix=f"let this machine reach its package index, or put uv at {path_on_hosts('<root>')} on the hosts",
            )
    return binary
