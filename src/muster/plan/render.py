"""Text from templates: units, environment files and whatever else lands on a host.

No template writes a raw value: each goes through the filter for its place, which quotes or refuses it. `render` refuses
a value that went through none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

import jinja2

from muster import resources

_PLAIN = re.compile(r"[\w@+=:,./-]+", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9._+@:-]+)+")
# Control, format (bidirectional marks), surrogate, private and unassigned characters, line and paragraph separators:
# some end a line for some reader, and systemd takes a file with one that is no text for no file.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class Quoted(str):
    """Text that a filter has made fit for its place in a template."""

    __slots__ = ()


def systemd_word(word: str) -> str:
    """Quote one word for a unit's command line: `%` and `$` are doubled, the rest quoted where needed.

    Raises:
        ValueError: a control or hidden character, such as a line break.
    """
    _visible(word, "a unit's command line")
    escaped = word.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(word):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


def systemd_command(argv: Sequence[str]) -> str:
    """Return a command line for a unit, one flag with its value per line, as a person would write it.

    Raises:
        ValueError: no program by its absolute path, or a word that no unit can carry.
    """
    # systemd reads `-`, `@`, `!`, `+` and `:` before the program as orders of their own.
    if not argv or not _PATH.fullmatch(argv[0]):
        raise ValueError(f"not a program by its absolute path: {list(argv[:1])!r}")
    lines: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(systemd_word(word))
    return " \\\n    ".join(" ".join(line) for line in lines)


def unit_text(value: str) -> str:
    """Return text for one line of a unit, such as its Description.

    Raises:
        ValueError: a control or hidden character, nothing at all, or a backslash at its end: it would join lines.
    """
    _visible(value, "a unit's line")
    if not value.strip() or value.endswith("\\"):
        raise ValueError(f"a unit's line is not empty and ends with no backslash: {value!r}")
    return value.replace("%", "%%")


def env_name(value: str) -> str:
    """Return the name of an environment variable.

    Raises:
        ValueError: any other text.
    """
    return _matching(value, r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")


def env_value(value: str) -> str:
    """Quote a value of an environment file as systemd reads it.

    Raises:
        ValueError: a control or hidden character, such as a line break.
    """
    _visible(value, "an environment file")
    if re.fullmatch(r"[\w@%+=:,./-]*", value, re.ASCII):
        return value
    return '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'


def name(value: str) -> str:
    """Return a name of letters, digits, dashes and underscores: of a group, a credential, a table.

    Raises:
        ValueError: any other text.
    """
    return _matching(value, r"[A-Za-z0-9_-]+", "a name")


def digest(value: str) -> str:
    """Return a digest.

    Raises:
        ValueError: any other text.
    """
    return _matching(value, r"[0-9a-f]+", "a digest")


def path(value: str) -> str:
    """Return an absolute path of plain characters: no blank, quote or specifier, and no segment that leads elsewhere.

    Raises:
        ValueError: any other text.
    """
    if not _PATH.fullmatch(value) or {".", ".."} & set(value.split("/")):
        raise ValueError(f"not an absolute path of plain characters: {value!r}")
    return value


def unit_name(value: str) -> str:
    """Return the name of a systemd unit.

    Raises:
        ValueError: any other text.
    """
    return _matching(value, r"[A-Za-z0-9:_.@-]+\.(service|target|slice|timer)", "the name of a unit")


def device(value: str) -> str:
    """Return a device node or a group of them, as DeviceAllow takes it.

    Raises:
        ValueError: any other text.
    """
    return _matching(value, r"char-[a-z_-]+|/dev(/[A-Za-z0-9_-]+)+", "a device")


@lru_cache(maxsize=4096)
def network(value: str) -> str:
    """Return an IP network or address.

    Raises:
        ValueError: any other text.
    """
    if "%" in value:  # the address module takes any text for a zone
        raise ValueError(f"an address with a zone: {value!r}")
    ip_network(value)
    return value


def networks(values: Sequence[str]) -> str:
    """Return IP networks as the elements of an nftables set.

    Raises:
        ValueError: one that is no network.
    """
    return ", ".join(network(value) for value in values)


def port_ranges(values: Sequence[tuple[int, int]]) -> str:
    """Return TCP ports as the elements of an nftables set.

    Args:
        values: first and last port of each range.

    Raises:
        ValueError: numbers that are no ports.
    """
    for first, last in values:
        if type(first) is not int or type(last) is not int or not 0 < first <= last < 65536:
            raise ValueError(f"not a range of ports: {first!r} to {last!r}")
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in values)


def haproxy_string(value: str) -> str:
    """Quote a text for HAProxy's configuration, which takes it to the letter.

    Raises:
        ValueError: a control or hidden character, a single quote, or a backslash at its end.
    """
    _visible(value, "HAProxy's configuration")
    if "'" in value or value.endswith("\\"):
        raise ValueError(f"a quote, or a backslash at the end, is not taken to the letter: {value!r}")
    return f"'{value}'"


def haproxy_header(value: str) -> str:
    """Quote the value of a header of an answer for HAProxy's configuration, which otherwise fills it in.

    Raises:
        ValueError: a control or hidden character, a double quote, a backslash or a dollar sign.
    """
    _visible(value, "HAProxy's configuration")
    if set(value) & set('"\\$'):
        raise ValueError(f"a double quote, backslash or dollar sign is not taken to the letter: {value!r}")
    return '"' + value.replace("%", "%%") + '"'


def lua_string(value: str) -> str:
    """Quote a text for a Lua program, which takes it to the letter.

    Raises:
        ValueError: a control or hidden character, or what ends such a text.
    """
    _visible(value, "a Lua program")
    if "]=" in value or value.endswith("]"):
        raise ValueError(f"the text would end before its end: {value!r}")
    return f"[==[{value}]==]"


def http_answer(value: tuple[int, str, int]) -> str:
    """Return an answer of HAProxy's own, as its `return` and `http-error` take it.

    Args:
        value: status, body as JSON, and seconds for Retry-After, 0 for none.

    Raises:
        ValueError: no such three, or a body that HAProxy cannot carry.
    """
    status, body, seconds = value
    words = f"status {number(status)} content-type application/json string {haproxy_string(body)}"
    return words + (f" hdr Retry-After {number(seconds)}" if seconds else "")


def number(value: int) -> str:
    """Return a whole number from 0 to 2**31 - 1, as seconds and ports are.

    Raises:
        ValueError: anything else.
    """
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"not a whole number from 0 to 2**31 - 1: {value!r}")
    return str(value)


def _visible(value: str, where: str) -> None:
    # What Python prints as it is holds none of them; the rest is looked at letter by letter.
    if not value.isprintable() and any(unicodedata.category(char) in _HIDDEN for char in value):
        raise ValueError(f"{where} cannot carry control characters: {value!r}")


def _matching(value: str, pattern: str, what: str) -> str:
    if not re.fullmatch(pattern, value):
        raise ValueError(f"not {what}: {value!r}")
    return value


FILTERS: Mapping[str, Callable[[Any], str]] = {
    "device": device,
    "digest": digest,
    "env_name": env_name,
    "env_value": env_value,
    "haproxy_header": haproxy_header,
    "haproxy_string": haproxy_string,
    "http_answer": http_answer,
    "lua_string": lua_string,
    "name": name,
    "network": network,
    "networks": networks,
    "number": number,
    "path": path,
    "port_ranges": port_ranges,
    "systemd": systemd_word,
    "systemd_command": systemd_command,
    "unit_name": unit_name,
    "unit_text": unit_text,
}


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.directory("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=_only_quoted,
    )
    environment.filters |= {name: _quoting(filter_) for name, filter_ in FILTERS.items()}
    return environment


def _quoting(filter_: Callable[[Any], str]) -> Callable[[Any], Quoted]:
    def quote(value: Any) -> Quoted:
        if isinstance(value, jinja2.Undefined):
            str(value)  # raises: a value that is missing is the plan's fault, not the value's
        return Quoted(filter_(value))

    return quote


def _only_quoted(value: Any) -> str:
    if not isinstance(value, Quoted):
        raise ValueError(f"a template writes {value!r} through no filter")
    return value


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template; a name it uses and `values` lacks is an error.

    Raises:
        jinja2.UndefinedError: a missing value; the plan is at fault.
        ValueError: a value that its place in the file cannot carry.
    """
    return _environment().get_template(template).render(**values)
