"""Where the files of an engine may come from: the configured indexes and directories, and no other address. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from muster.errors import Refusal
from muster.plan.types import Release

PYTORCH = ("https://download.pytorch.org", "https://download-r2.pytorch.org")
"""PyTorch's own index, which `torch_backend` means, and where it keeps files."""

Origin = tuple[str, str, int | None]
"""Scheme, host and port."""


@dataclass(frozen=True)
class Addresses:
    """What a release may name.

    Args:
        origins: of indexes and of their files.
        urls: named one by one in the requirements.
        directories: with wheels, on the hosts.
    """

    origins: frozenset[Origin]
    urls: frozenset[str]
    directories: tuple[str, ...]

    def has(self, url: str) -> bool:
        """Whether a file's address is one of these."""
        if url in self.urls:
            return True
        parts = urlsplit(url)
        if parts.scheme == "file":
            path = unquote(parts.path)
            return not parts.netloc and ".." not in path.split("/") and path.startswith(self.directories)
        return parts.username is None and _origin(url) in self.origins


def addresses_of(release: Release, file_hosts: Sequence[str]) -> Addresses:
    """Return the addresses that a release's files may have.

    Args:
        release: of the plan; its install arguments name the indexes.
        file_hosts: setting `index_file_hosts`: further hosts on which the indexes keep their files.
    """
    flags = list(zip(release.install_args[::2], release.install_args[1::2], strict=True))
    indexes = [value for flag, value in flags if flag in ("--index-url", "--extra-index-url")]
    if "--index-url" not in dict(flags):
        indexes += default_index()
    if "--torch-backend" in dict(flags):
        indexes += PYTORCH
    links = [value for flag, value in flags if flag == "--find-links"]
    urls = [url for line in (*release.requirements, *release.overrides) for url in _named(line)]
    pages = [link for link in links if "://" in link and not link.startswith("file://")]
    local = [unquote(urlsplit(link).path) for link in links if link not in pages]
    local += [unquote(urlsplit(index).path) for index in indexes if index.startswith("file://")]
    origins = {_origin(index) for index in (*indexes, *pages) if not index.startswith("file://")}
    origins |= {_origin(name if "://" in name else f"https://{name}") for name in file_hosts}
    return Addresses(frozenset(origins), frozenset(urls), tuple(path.rstrip("/") + "/" for path in local))


def default_index() -> tuple[str, ...]:
    """Return the public index that uv takes when no setting names one, and where it keeps its files.

    pip knows both. Nothing is known where this environment has no pip; then `index_url` and `index_file_hosts` say it.
    """
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        return ()
    return (str(PyPI.url), f"https://{PyPI.file_storage_domain}")


def require_allowed(packages: Iterable[Mapping[str, Any]], addresses: Addresses, where: str) -> None:
    """Refuse a resolution with a file from elsewhere.

    Args:
        packages: as `on_host.pylock.parse` returns them.
        addresses: of the release.
        where: the resolution came from: a host or a file.

    Raises:
        Refusal: naming the packages and their addresses.
    """
    foreign = [f"{package['name']} at {package['url']}" for package in packages if not addresses.has(package["url"])]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        known = [f"{scheme}://{host}" for scheme, host, _ in sorted(addresses.origins, key=str)]
        raise Refusal(
            f"{where} resolves the engine to files from elsewhere: {', '.join(foreign[:3])}{more}",
            needed=f"files of the configured indexes: {', '.join([*known, *addresses.directories])}",
            fix="name the index in index_url or extra_index_urls, or the host of its files in index_file_hosts;"
            " if none of them is yours, find out who wrote that resolution",
        )


def _named(requirement: str) -> list[str]:
    """Return the address of a requirement `name @ url`, without its fragment."""
    found = re.search(r"@\s*(\S+)", requirement)
    if found is None or "://" not in found.group(1):
        return []
    return [found.group(1), found.group(1).partition("#")[0]]


def _origin(url: str) -> Origin:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if (parts.scheme, port) in (("https", 443), ("http", 80)):
        port = None
    return parts.scheme, (parts.hostname or "").lower(), port
