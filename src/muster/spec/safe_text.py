"""What text may enter a unit, a path, an environment or a command line: the types of everything a user writes.

Each type is a string that its function let through, so that a hostile recipe or setting is refused where it is read,
under the name of its key, rather than where a template has already made it part of a file.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from muster.errors import shown
from muster.on_host.transfer_store import is_commit

LONGEST = 4096
"""Characters of the longest text; no path, address or argument needs more."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
_PATH = re.compile(r"(/[A-Za-z0-9._+@:-]+)+")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SERVED = re.compile(r"[A-Za-z0-9_/][\w./:+@-]{0,255}", re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){1,2}([.+-]?[0-9A-Za-z]+([.+-][0-9A-Za-z]+)*)?", re.ASCII)
_FLAG = re.compile(r"[a-z0-9][a-z0-9-]{0,79}(\.[a-z0-9_.-]{1,79})?")  # after a dot: a field of a JSON flag
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,14}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_REQUIREMENT = re.compile(  # name, extras, versions; no address and no marker
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9._-]{0,78}[A-Za-z0-9])?)(\[[A-Za-z0-9._-]{1,40}(,[A-Za-z0-9._-]{1,40}){0,9}\])?"
    r"((===?|!=|~=|<=?|>=?)[0-9A-Za-z.*+!-]{1,40}(,(===?|!=|~=|<=?|>=?)[0-9A-Za-z.*+!-]{1,40}){0,9})?"
)
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")

# muster creates its own directories, sets their owner and makes some writable for the engine; these are not its own.
_SYSTEM = frozenset(
    {"/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root"}
    | {"/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/usr/share"}
    | {"/var", "/var/cache", "/var/lib", "/var/lib/muster", "/var/log", "/var/run", "/var/tmp"}
)


def line(value: str) -> str:
    """Let one line of visible text through: no line break, control or format character, and no blank but the space."""
    if len(value) > LONGEST:
        raise ValueError(f"at most {LONGEST} characters, not {len(value)}")
    bad = next((char for char in value if not char.isprintable()), None)
    if bad is not None:
        raise ValueError(f"one line of visible characters, without U+{ord(bad):04X}")
    return value


def unit_text(value: str) -> str:
    """Let text for a unit's Description through: one line that continues no further line, and starts no comment."""
    line(value)
    if value != value.strip() or value.endswith("\\") or not value:
        raise ValueError("one line of visible characters, not empty, no blanks around it, no backslash at its end")
    if len(value) > 200:
        raise ValueError(f"at most 200 characters, not {len(value)}")
    return value


def name(value: str) -> str:
    """Let the name of a group or recipe through: units, directories and files are named after it."""
    if not _NAME.fullmatch(value):
        raise ValueError("lower-case letters, digits and dashes, at most 40, since units are named after it")
    return value


def path_segment(value: str) -> str:
    """Let one segment of a path through: no slash, and neither `.` nor `..`."""
    if not _SEGMENT.fullmatch(value):
        raise ValueError("letters, digits and ._+- (at most 128, the first none of .+-), since a path is made with it")
    return value


def absolute_path(value: str) -> str:
    """Let a path on the hosts through: absolute, without blanks, and without segments that lead elsewhere."""
    if len(value) > LONGEST or not _PATH.fullmatch(value):
        raise ValueError("an absolute path on the hosts, without blanks and without / at its end")
    if {".", ".."} & set(value.split("/")):
        raise ValueError("an absolute path on the hosts, without . and .. in it")
    return value


def local_path(value: str) -> str:
    """Let a path on the control machine through: not empty, since an empty one would pass for none."""
    if not line(value).strip():
        raise ValueError("the path of a file on this machine; leave the setting out, or set None, for none")
    return value


def own_directory(value: str) -> str:
    """Let a directory through that muster makes, and may give to the engine's user."""
    absolute_path(value)
    if value in _SYSTEM or value.startswith(("/dev/", "/etc/", "/proc/", "/sys/", "/usr/bin/", "/usr/sbin/", "/boot/")):
        raise ValueError("a directory of its own, since its owner and mode are set: not one that the system has")
    return value


def env_name(value: str) -> str:
    """Let the name of an environment variable through."""
    if not _ENV_NAME.fullmatch(value):
        raise ValueError("the name of an environment variable: letters, digits and _, the first no digit")
    return value


def served_name(value: str) -> str:
    """Let the name of a model in the API through: command lines, addresses and metrics carry it."""
    if not _SERVED.fullmatch(value):
        raise ValueError("letters, digits and ./:+@_- (at most 256, the first a letter, digit, _ or /)")
    return value


def model_id(value: str) -> str:
    """Let a model at the hub (`organisation/name`) or a directory on the hosts through."""
    if value.startswith("/"):
        return absolute_path(value)
    if not _MODEL.fullmatch(value) or ".." in value:
        raise ValueError("organisation/name at the hub, or an absolute path on the hosts")
    return value


def version(value: str) -> str:
    """Let one exact version through."""
    if len(value) > 80 or not _VERSION.fullmatch(value):
        raise ValueError("one exact version such as 0.33.0")
    return value


def commit(value: str) -> str:
    """Let a commit through."""
    if not is_commit(value):
        raise ValueError("a commit of 40 hexadecimal digits; a branch or tag can move")
    return value


def flag(value: str) -> str:
    """Let the name of one of vLLM's flags through, without the dashes before it."""
    if not _FLAG.fullmatch(value):
        raise ValueError("a flag of vLLM without its leading dashes: lower-case letters, digits, dashes and dots")
    return value


def network(value: str) -> str:
    """Let an IP network through, as the address module writes it: `10.0.0.7` is `10.0.0.7/32`."""
    try:
        if "%" in value:  # the module takes any text for a zone
            raise ValueError("it names a zone")
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"an IP network such as 10.0.0.0/8 ({shown(str(error))})") from None


def address(value: str) -> str:
    """Let the IP address of one host through, as the address module writes it."""
    try:
        if "%" in value:
            raise ValueError("it names a zone")
        found = ipaddress.ip_address(value)
        if found.is_unspecified or found.is_multicast or value == "255.255.255.255":
            raise ValueError("no host has it")
        return str(found)
    except ValueError as error:
        raise ValueError(f"an IP address ({shown(str(error))})") from None


def dotted(value: str) -> str:
    """Let the beginning of a version through: `580`, `570.124`."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}", value):
        raise ValueError("the beginning of a version, such as 570.124")
    return value


def interface(value: str) -> str:
    """Let the name of a network interface through."""
    if not _INTERFACE.fullmatch(value):
        raise ValueError("the name of a network interface, such as eth1")
    return value


def url(value: str) -> str:
    """Let an http, https or file address through: one line without blanks that has a host, or a path."""
    line(value)
    try:
        parts = urlsplit(value)
        complete = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise ValueError(f"an address such as https://mirror.example/simple ({shown(str(error))})") from None
    if parts.scheme == "file" and parts.path.startswith("/"):
        complete = True
    if parts.scheme not in ("http", "https", "file") or not complete or re.search(r"\s", value):
        raise ValueError("an address such as https://mirror.example/simple, without blanks")
    return value


def host_name(value: str) -> str:
    """Let a name of the DNS through, in lower case."""
    if len(value) > 253 or not _HOST.fullmatch(value):
        raise ValueError("a DNS name in lower case, such as api.example.com")
    return value


def header_name(value: str) -> str:
    """Let the name of an HTTP header through."""
    if not _HEADER.fullmatch(value):
        raise ValueError("the name of a header: letters, digits and dashes, such as X-Session-ID")
    return value


def requirement(value: str) -> str:
    """Let a package of an index through, with extras and versions: no address, no marker, no option of an installer."""
    if len(value) > 200 or not _REQUIREMENT.fullmatch(value):
        raise ValueError("a package of an index such as transformers>=5.8.0, without address, marker and blanks")
    return value


def package_name(value: str) -> str:
    """Return the package that a requirement names, as indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", value.strip())[0]).lower()


def word(value: str) -> str:
    """Let one word of a command line, or the value of an environment variable, through."""
    return line(value)


Line = Annotated[str, AfterValidator(line)]
UnitText = Annotated[str, AfterValidator(unit_text)]
Name = Annotated[str, AfterValidator(name)]
PathSegment = Annotated[str, AfterValidator(path_segment)]
AbsolutePath = Annotated[str, AfterValidator(absolute_path)]
LocalPath = Annotated[str, AfterValidator(local_path)]
OwnDirectory = Annotated[str, AfterValidator(own_directory)]
EnvName = Annotated[str, AfterValidator(env_name)]
ServedName = Annotated[str, AfterValidator(served_name)]
ModelId = Annotated[str, AfterValidator(model_id)]
Version = Annotated[str, AfterValidator(version)]
Commit = Annotated[str, AfterValidator(commit)]
Flag = Annotated[str, AfterValidator(flag)]
Network = Annotated[str, AfterValidator(network)]
Dotted = Annotated[str, AfterValidator(dotted)]
HostName = Annotated[str, AfterValidator(host_name)]
HeaderName = Annotated[str, AfterValidator(header_name)]
Url = Annotated[str, AfterValidator(url)]
Requirement = Annotated[str, AfterValidator(requirement)]
Word = Annotated[str, AfterValidator(word)]
