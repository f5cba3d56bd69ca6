"""The secrets that systemd laid out for the unit: the group's key, the API key, the engine's own variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .bounded_file import read_bounded

API_KEY = "VLLM_API_KEY"
# The control machine ships `NAME=value` lines with nothing quoted; anything else must not pass for "no key".
_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([!#-&(-\[\]-_a-~]+)\n")
_LIMIT = 128 * 1024


@dataclass(frozen=True)
class Credentials:
    """What one guard may know.

    Args:
        group_key: of the group, as its file holds it.
        engine: variables that the engine's processes get beside the plan's.
    """

    group_key: str
    engine: Mapping[str, str]

    @property
    def api_key(self) -> str:
        """The API's key; empty where it asks for none."""
        return self.engine.get(API_KEY, "")


def read() -> Credentials:
    """The credentials of this unit.

    Raises OSError, KeyError (no CREDENTIALS_DIRECTORY), ValueError (a file in another form than it is shipped in).
    """
    folder = os.environ["CREDENTIALS_DIRECTORY"]
    group_key = read_bounded(os.path.join(folder, "guard-key")).decode("utf-8")
    engine = _variables(folder, "engine-secrets")
    key = _variables(folder, "api-key")
    if key and list(key) != [API_KEY]:
        raise ValueError(f"the credential api-key is not one line {API_KEY}=...; run the deploy again")
    return Credentials(group_key, {**engine, **key})


def _variables(folder: str, name: str) -> dict[str, str]:
    path = os.path.join(folder, name)
    if not os.path.lexists(path):
        return {}
    text = read_bounded(path, _LIMIT).decode("utf-8")
    found = {match[1]: match[2] for match in _LINE.finditer(text)}
    if not found or "".join(f"{key}={value}\n" for key, value in found.items()) != text:
        raise ValueError(f"the credential {name} holds other than NAME=value lines; run the deploy again")
    return found
