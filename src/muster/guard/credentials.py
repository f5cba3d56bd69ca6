"""The secrets that systemd hands to the unit: the group's key, the API key, the engine's own variables.

Children run as the guard's own user, who must not read the group's key. So systemd opens its file as root and passes it
as standard input, which the guard reads and closes before it starts anything. From then on the key is in memory alone,
which `hide_memory` closes to processes of the same user. The other secrets are the engine's.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from .bounded_file import read_bounded

API_KEY = "VLLM_API_KEY"
# The control machine ships `NAME=value` lines with nothing quoted; anything else must not pass for "no key".
_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([!#-&(-\[\]-_a-~]+)\n")
_LIMIT = 128 * 1024
_KEY_LIMIT = 4096
_PR_SET_DUMPABLE = 4  # prctl(2)


@dataclass(frozen=True)
class Credentials:
    """What one guard may know.

    Args:
        group_key: of the group, as its file holds it.
        engine: variables that the engine's processes get beside the plan's.
    """

    group_key: str
    engine: Mapping[str, str]


def hide_memory() -> str:
    """Close this process's memory and descriptors to others of its user; why that failed, or empty.

    A child is open again once it executes its program.
    """
    try:
        failed = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (OSError, AttributeError) as error:
        return f"prctl cannot be called: {error}"
    return f"prctl: {os.strerror(ctypes.get_errno())}" if failed else ""


def read() -> Credentials:
    """The secrets of this unit.

    Raises OSError, KeyError (no group key at all), ValueError (a file in another form than it is shipped in).
    """
    group_key = _take_group_key()
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    engine = _variables(folder, "engine-secrets")
    key = _variables(folder, "api-key")
    if key and list(key) != [API_KEY]:
        raise ValueError(f"the credential api-key is not one line {API_KEY}=...; run the deploy again")
    return Credentials(group_key, {**engine, **key})


def _take_group_key() -> str:
    """From standard input, which is /dev/null afterwards; outside a unit from the credential `guard-key`."""
    if stat.S_ISREG(os.fstat(0).st_mode):
        data = os.read(0, _KEY_LIMIT)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        return data.decode("utf-8")
    return read_bounded(os.path.join(os.environ["CREDENTIALS_DIRECTORY"], "guard-key"), _KEY_LIMIT).decode("utf-8")


def _variables(folder: str, name: str) -> dict[str, str]:
    path = os.path.join(folder, name)
    if not folder or not os.path.lexists(path):
        return {}
    text = read_bounded(path, _LIMIT).decode("utf-8")
    found = {match[1]: match[2] for match in _LINE.finditer(text)}
    if not found or "".join(f"{key}={value}\n" for key, value in found.items()) != text:
        raise ValueError(f"the credential {name} holds other than NAME=value lines; run the deploy again")
    return found
