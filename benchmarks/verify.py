"""How fast files are verified, beside the hashing of the same files with openssl on all cores.

    python benchmarks/verify.py --mib 2048 [--keep]

Both read the same files from the page cache, by turns, so that what else the machine does weighs on both. `--keep`
writes benchmarks/results/verify-<date>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src")]

from muster.on_host import transfer_store, whole_files  # noqa: E402


def main() -> None:
    """Measure and print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/verify-<date>.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="muster-verify-") as place:
        names = [f"model-{number:05}.safetensors" for number in range(given.files)]
        block = os.urandom(1 << 20)
        for name in names:
            with open(Path(place, name), "wb") as handle:
                for _ in range(given.mib // given.files):
                    handle.write(block)
        openssl(place, names)
        ours, theirs = [], []
        size = given.mib // given.files << 20
        expected = {name: {"size": size, "sha256": whole_files.sha256(f"{place}/{name}")} for name in names}
        for _ in range(given.turns):
            theirs.append(timed(lambda: openssl(place, names)))
            ours.append(timed(lambda: transfer_store.verify(place, expected)))
    total = given.mib // given.files * given.files * 2**20 / 1e9
    print(f"{total:.2f} GB in {given.files} files, {os.cpu_count()} cores, best of {given.turns} turns")
    print(f"openssl {total / min(theirs):.2f} GB/s, muster {total / min(ours):.2f} GB/s", end=", ")
    print(f"{100 * min(theirs) / min(ours):.0f} %")
    if given.keep:
        today = datetime.date.today().isoformat()
        kept = {
            "date": today,
            "gb": round(total, 3),
            "files": given.files,
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "openssl_seconds": theirs,
            "muster_seconds": ours,
            "ratio_of_best": min(theirs) / min(ours),
        }
        (HERE / "results" / f"verify-{today}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def openssl(place: str, names: list[str]) -> None:
    """Hash every file with openssl, one process a file, as many at once as there are cores."""
    argv = ["xargs", "-n", "1", "-P", str(os.cpu_count()), "openssl", "dgst", "-sha256"]
    subprocess.run(argv, input="\n".join(names), text=True, cwd=place, check=True, stdout=subprocess.DEVNULL)


def timed(work: object) -> float:
    """Return the seconds that something takes."""
    began = time.monotonic()
    work()  # type: ignore[operator]
    return time.monotonic() - began


if __name__ == "__main__":
    main()
