"""Refusals: what was found, what was needed, what to do next."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable


class Refusal(Exception):
    """An input or a host that muster will not go on with.

    Args:
        found: what is there, with the host's or file's name where there is one.
        needed: what this plan needs instead.
        fix: the command, setting or file to change.
        detail: further lines (a table, a list), printed below.
    """

    def __init__(self, found: str, *, needed: str = "", fix: str = "", detail: str = "") -> None:
        self.found, self.needed, self.fix, self.detail = found, needed, fix, detail
        lines = [found]
        if needed:
            lines.append(f"  needed: {needed}")
        if fix:
            lines.append(f"  fix:    {fix}")
        if detail:
            lines.extend(["", detail])
        super().__init__("\n".join(lines))


_LONGEST_SHOWN = 200
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _LONGEST_SHOWN
_brief.maxlevel = 3


def shown(word: str) -> str:
    """Return a word as it may be printed: itself, or quoted and cut where it is long or not on one visible line."""
    return word if word.isprintable() and len(word) <= _LONGEST_SHOWN else literal(word)


def literal(value: object) -> str:
    """Return a value as Python writes it, on one visible line; what is long or nested is cut."""
    text = _brief.repr(value)
    return text if len(text) <= 2 * _LONGEST_SHOWN else text[: 2 * _LONGEST_SHOWN] + "..."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word closest to a misspelt one, or None when none is close."""
    close = difflib.get_close_matches(word, list(known), n=5, cutoff=0.6)
    swapped = [name for name in close if sorted(name) == sorted(word)]  # 'prot' is 'port' rather than 'root'
    return next(iter([*swapped, *close]), None)


_FEW_NAMES = 12


def unknown(what: str, word: str, known: Iterable[str], *, where: str = "") -> Refusal:
    """Build the refusal of an unknown name, with the nearest known one.

    Args:
        what: the kind of name ("strategy", "setting", "recipe key").
        word: what was written.
        known: every name that exists.
        where: file or place, for the message.
    """
    names = sorted(known)
    guess = nearest(word, names)
    hint = f"; did you mean '{guess}'?" if guess else ""
    place = f"{where}: " if where else ""
    # After a right guess, a long list of other names hides the answer.
    needed = "" if guess and len(names) > _FEW_NAMES else f"one of {', '.join(names)}"
    fix = f"write '{guess}'" if guess else ""
    return Refusal(f"{place}unknown {what} '{shown(word)}'{hint}", needed=needed, fix=fix)
