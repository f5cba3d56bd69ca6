"""Paths that the engine would be given and could not see: its unit hides homes and has its own temporary directories.

`ProtectHome=yes` hides /home, /root and /run/user; `PrivateTmp=yes` replaces /tmp and /var/tmp (unit.service.j2).
A model below one of them passes every check that root makes, and the ranks die of a file that is not there.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping

from muster.errors import Refusal

HIDDEN: Mapping[str, str] = {
    "/home": "ProtectHome=yes hides it from the unit",
    "/root": "ProtectHome=yes hides it from the unit",
    "/run/user": "ProtectHome=yes hides it from the unit",
    "/tmp": "the unit has a /tmp of its own",
    "/var/tmp": "the unit has a /var/tmp of its own",
}


def check(words: Iterable[str], environment: Mapping[str, str], *, settings: Mapping[str, str | None]) -> None:
    """Refuse paths that the unit cannot see.

    Args:
        words: the engine's command line.
        environment: of the engine.
        settings: name -> path, for what reaches the engine by neither.

    Raises:
        Refusal: naming the path, where it comes from, and what hides it.
    """
    named = [(f"setting {name}", value) for name, value in settings.items() if value]
    named += [(f"environment {name}", part) for name, value in environment.items() for part in value.split(":")]
    named += [("the command line", part) for word in words for part in _parts(word)]
    for where, value in named:
        place = hidden_by(value)
        if place:
            raise Refusal(
                f"{value}, from {where}, is below {place}: {HIDDEN[place]}",
                needed="a path that the engine's user sees from inside the unit",
                fix="move or copy it below /var/lib/muster, /srv or /opt on every host, readable by user muster,"
                " and name it there",
            )


def _parts(word: str) -> Iterable[str]:
    """Return a word, what follows its `=`, and every text of the JSON that it may be."""
    value = word.partition("=")[2]
    for text in (word, value):
        yield text
        if text.startswith(("{", "[")):
            try:
                yield from _texts(json.loads(text))
            except ValueError:
                continue


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(item)


def hidden_by(path: str) -> str | None:
    """Return the hidden directory that a path lies in, or None; what is no absolute path is never hidden."""
    if not path.startswith("/") or "\n" in path:
        return None
    clean = "/" + posixpath.normpath(path).lstrip("/")
    return next((place for place in HIDDEN if clean == place or clean.startswith(place + "/")), None)
