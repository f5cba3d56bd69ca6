"""A hub's token: read from its file, sent to no address where others could read it on the way."""

from __future__ import annotations

from pathlib import Path

from muster.errors import Refusal, literal
from muster.on_host.http_bounds import HttpError, is_private_to

_LONGEST = 4096


def read(path: str, *, setting: str) -> str:
    """Return the token in a file of this machine.

    Args:
        path: of the file.
        setting: option or setting that names it, for messages.

    Raises:
        Refusal: no such file, or one that holds no token.
    """
    try:
        with Path(path).open(encoding="ascii") as file:
            token = file.read(_LONGEST + 1).strip()
    except OSError as error:
        found = f"{setting} {path}: {error.strerror}"
    except ValueError:
        found = f"{setting} {path} is not plain text"
    else:
        if token and len(token) <= _LONGEST and token.isprintable() and " " not in token:
            return token
        found = f"{setting} {path} is empty" if not token else f"{setting} {path} holds more than a token"
    raise Refusal(found, needed="a file on this machine with nothing but the token", fix=f"correct {setting}")


def check_goes_to(address: str, *, setting: str) -> None:
    """Refuse an address to which a token would go in clear.

    Args:
        address: of a hub.
        setting: option or setting that names it, for messages.

    Raises:
        Refusal: it is neither https nor this machine, or no address at all.
    """
    try:
        private = is_private_to(address)
    except HttpError as error:
        raise Refusal(f"{setting}: {error}", needed="https://…", fix=f"correct {setting}") from None
    if not private:
        raise Refusal(
            f"{setting} {literal(address)} is not https: anybody on the way could read the token",
            needed="an address of https for requests with a token",
            fix=f"use https in {setting}, or give no token",
        )
