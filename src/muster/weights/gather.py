"""Gather the wheels of a release on a machine that reaches the indexes: resolved once, with hashes, for all hosts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from uv import find_uv_bin

from muster.errors import Refusal
from muster.on_host import pylock, whole_files
from muster.on_host.bounded_http import Client
from muster.on_host.http_bounds import HttpError, length_of
from muster.plan.types import Release
from muster.spec import bundles
from muster.spec.listing import Listing
from muster.weights import hub

PLATFORM = "x86_64-manylinux_2_28"
"""glibc 2.28: the oldest that vLLM's own wheels run on."""
_PIECE = 1 << 20
_LARGEST = 16 << 30
"""Bytes of one wheel, or of a Python; torch's largest take 4 GB."""
_WHEELS = "wheels only: hosts without a network cannot build"
_BUILD = "build one (`uv build --wheel`) and name its directory in find_links"


def lock(release: Release, out: Path, *, platform: str = PLATFORM) -> Path:
    """Resolve a release once and write the resolution, with every file's hash; return its path.

    Args:
        release: of the plan.
        out: directory to write into.
        platform: uv's name of the hosts' platform.

    Raises:
        Refusal: uv's own last lines.
    """
    if "auto" in release.install_args:
        raise Refusal(
            "torch_backend is 'auto', which asks the driver of the machine it runs on",
            needed="the CUDA of the hosts, which this machine cannot know",
            fix="--data torch_backend=cu130 (or cu129, cpu)",
        )
    place = out / "pylock.toml"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        requirements, overrides = Path(work, "requirements.in"), Path(work, "overrides.txt")
        requirements.write_text("\n".join(release.requirements) + "\n", encoding="utf-8")
        overrides.write_text("\n".join(release.overrides) + "\n", encoding="utf-8")
        command = [
            find_uv_bin(),
            "pip",
            "compile",
            str(requirements),
            "--format",
            "pylock.toml",
            "--quiet",
            "--no-header",
        ]
        command += [
            "--generate-hashes",
            "--only-binary",
            ":all:",
            "--python-version",
            release.python,
            "--python-platform",
            platform,
        ]
        command += ["--output-file", str(place), *release.install_args]
        command += ["--override", str(overrides)] if release.overrides else []
        _run(command, _downloads(release))
    return place


def _downloads(release: Release) -> dict[str, str]:
    # The directories of the release's own environment are on the hosts.
    proxies = {key: value for key, value in release.env.items() if key.endswith(("_PROXY", "_FILE"))}
    # Only wheels are resolved: no Python of the hosts' version is run, so none needs to be fetched.
    return {**os.environ, **proxies, "UV_PYTHON_DOWNLOADS": "never"}


def wheels(place: Path, out: Path) -> list[Path]:
    """Fetch every wheel of a resolution and check its hash; a wheel that is already here is not fetched again.

    Args:
        place: `pylock.toml`.
        out: directory for the wheels.

    Raises:
        Refusal: a package without a wheel for the hosts, or a file with another hash.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        packages = pylock.parse(place.read_text(encoding="utf-8"), str(place.parent))
    except ValueError as error:
        raise Refusal(f"{place}: {error}", needed=_WHEELS, fix=_BUILD) from None
    for package in packages:
        if package["kind"] != "wheel":
            raise Refusal(
                f"{package['name']} {package['version']} has no wheel for the hosts", needed=_WHEELS, fix=_BUILD
            )
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda package: _one(package, out), packages))


def _one(package: Mapping[str, Any], out: Path) -> Path:
    address, name = package["url"], package["file"]
    expected, place = package["sha256"], Path(out, name)
    if place.is_file() and whole_files.sha256(str(place)) == expected:
        return place
    part = _fetched(address, place, package["size"])
    actual = whole_files.sha256(str(part))
    if actual != expected:
        part.unlink()
        raise Refusal(f"{name} has SHA-256 {actual}", needed=expected, fix="find out who changed it, and run again")
    part.rename(place)
    return place


def _fetched(address: str, place: Path, size: int | None) -> Path:
    """Fetch a file beside its place and return where it is.

    Args:
        address: of http, https or a file of this machine.
        place: its final path.
        size: its bytes; None where the resolution does not say.

    Raises:
        Refusal: it cannot be fetched, or is larger than it may be.
    """
    part, parts = place.with_name(place.name + ".part"), urllib.parse.urlsplit(address)
    try:
        with part.open("wb") as file:
            if parts.scheme == "file":
                with open(urllib.parse.unquote(parts.path), "rb") as origin:
                    shutil.copyfileobj(origin, file, _PIECE)
            else:
                client = Client(environment=True)
                length = size if size is not None else length_of(client.get(address, limit=0, method="HEAD").headers)
                if length is None or length > _LARGEST:
                    raise HttpError("how large it is is not said" if length is None else f"it has {length} bytes")
                client.download(address, file, size=length, seconds=60)
    except OSError as error:
        raise Refusal(
            f"{place.name} could not be fetched from {parts.netloc.rpartition('@')[2] or 'this machine'}: {error}",
            fix="run again: what is here is kept",
        ) from None
    return part


def python(version: str, out: Path) -> Path:
    """Fetch the Python that uv would download for the hosts, in the layout of uv's own mirror.

    Raises:
        Refusal: uv knows no such Python.
    """
    command = [find_uv_bin(), "python", "list", "--only-downloads", "--output-format", "json", "--all-arches", version]
    rows = json.loads(_run(command, dict(os.environ)))
    fitting = [
        row
        for row in rows
        if row.get("url") and row["arch"] == "x86_64" and row["os"] == "linux" and row["libc"] == "gnu"
    ]
    if not fitting:
        raise Refusal(f"uv knows no Python {version} for x86-64 Linux", fix="--data python_version=3.12")
    address = fitting[0]["url"]
    date, name = urllib.parse.unquote(urllib.parse.urlsplit(address).path).split("/")[-2:]
    place = out / date / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_file():
        _fetched(address, place, None).rename(place)
    return place


def _run(command: list[str], env: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-12:])
        # The default platform is the oldest; a package may have wheels for newer ones only.
        lacking = "usable wheels" in tail or "no wheels with a matching platform" in tail
        fix = "--platform with the glibc of the hosts, such as x86_64-manylinux_2_35" if lacking else ""
        raise Refusal(f"`uv {' '.join(command[1:3])}` ended with {done.returncode}", fix=fix, detail=tail)
    return done.stdout


def seal(directory: Path, recipe: str) -> Listing:
    """Write `bundle.json`, which lists the files under `engine/`, and return it; its revision is a digest of them."""
    listing = hub.from_directory(f"bundle/{recipe}", directory / bundles.ENGINE)
    (directory / bundles.NOTE).write_text(json.dumps(listing.as_data(), indent=1) + "\n", encoding="utf-8")
    return listing
