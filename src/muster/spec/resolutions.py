"""Resolution files: `resolutions/<release>.toml`, the files of an engine with SHA-256, as they were first resolved.

Like a pin it is kept beside the inventory, can be read and committed, and holds for every later run: what hosts send is
compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from muster.errors import Refusal
from muster.on_host import whole_files

DIRECTORY = "resolutions"


def path_in_use(release: str, homes: Sequence[Path]) -> Path | None:
    """Return the file that holds a release's resolution, or None.

    Args:
        release: its id.
        homes: directories of the inventory, weakest first; the working directory's file precedes theirs.
    """
    places = [Path(DIRECTORY), *(home / DIRECTORY for home in reversed(homes))]
    return next((place / f"{release}.toml" for place in places if (place / f"{release}.toml").is_file()), None)


def read(place: Path) -> str:
    """Return the text of a resolution file.

    Raises:
        Refusal: it cannot be read.
    """
    try:
        return place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(
            f"{place} cannot be read: {error}", needed="a resolution as muster keeps it", fix="restore it, or remove it"
        ) from None


def write(release: str, text: str, homes: Sequence[Path]) -> Path:
    """Keep a resolution; return its path.

    The first `resolutions` directory that exists takes it; otherwise one is made beside the inventory, or above where
    that lies in `inventories`.

    Raises:
        Refusal: it cannot be written.
    """
    places = [Path(DIRECTORY), *(home / DIRECTORY for home in reversed(homes))]
    directory = next((place for place in places if place.is_dir()), _beside(homes) / DIRECTORY)
    place = directory / f"{release}.toml"
    try:
        directory.mkdir(exist_ok=True)
        whole_files.write_whole(str(place), text.encode())
    except OSError as error:
        raise Refusal(
            f"{place} cannot be written: {error.strerror or error}",
            needed="a place beside the inventory for what the engine was resolved to",
            fix=f"make {directory} writable, or run from a directory that has a {DIRECTORY}/ of its own",
        ) from None
    return place


def _beside(homes: Sequence[Path]) -> Path:
    if not homes:
        return Path()
    return homes[-1].parent if homes[-1].name == "inventories" else homes[-1]
