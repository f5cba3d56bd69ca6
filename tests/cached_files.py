"""Files on a disk, and what the page cache holds of them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from muster.guard import page_cache_program


def files_of(place: Path, *sizes: int) -> list[Path]:
    """Write files that are on the disk; two that are not compressible."""
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"model-{number}.safetensors" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        with path.open("wb") as file:
            file.write(os.urandom(size))
            os.fsync(file.fileno())
    return paths


def cached(path: Path) -> int:
    """Return how many bytes of a file the page cache holds, as util-linux counts them."""
    argv = ["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout)


def forget(path: Path) -> None:
    """Have the page cache drop a file; pages that another processor's batch still holds stay the first time."""
    until = time.monotonic() + 20
    with path.open("rb") as file:
        while True:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if not cached(path):
                return
            assert time.monotonic() < until, f"{cached(path)} bytes of {path} stay"
            time.sleep(0.02)


def share(names: Sequence[str], samples: int = 512, seed: int | None = None) -> float:
    """Return which share of the bytes of some files the page cache holds; 0 where one cannot be asked."""
    try:
        found, total = page_cache_program.estimate(names, samples, seed)
    except OSError:
        return 0.0
    return found / total if total else 0.0
