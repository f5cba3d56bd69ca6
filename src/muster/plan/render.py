"""Text from templates: units, environment files and whatever else lands on a host."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2

from muster import resources

_PLAIN = re.compile(r"[\w@+=:,./-]+", re.ASCII)


def systemd_word(word: str) -> str:
    """Quote one word for a unit's command line: `%` and `$` are doubled, the rest quoted where needed.

    Raises:
        ValueError: a line break or NUL, which no unit file can carry.
    """
    if any(ord(c) < 32 for c in word):
        raise ValueError(f"a unit's command line cannot carry control characters: {word!r}")
    escaped = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(word):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def systemd_command(argv: Sequence[str]) -> str:
    """Return a command line for a unit, one flag with its value a line, as a person would write it."""
    lines: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(systemd_word(word))
    return " \\\n    ".join(" ".join(line) for line in lines)


def env_value(value: str) -> str:
    """Quote a value of an environment file as systemd reads it.

    Raises:
        ValueError: a line break or NUL.
    """
    if any(ord(c) < 32 for c in value):
        raise ValueError(f"an environment file cannot carry control characters: {value!r}")
    if re.fullmatch(r"[\w@%+=:,./-]*", value, re.ASCII):
        return value
    return '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.directory("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["systemd"] = systemd_word
    environment.filters["systemd_command"] = systemd_command
    environment.filters["env_value"] = env_value
    return environment


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template; a name it uses and `values` lacks is an error.

    Raises:
        jinja2.UndefinedError: a missing value; the plan is at fault.
    """
    return _environment().get_template(template).render(**values)
