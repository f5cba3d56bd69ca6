"""How this machine reaches package indexes; the sandbox's hosts get the same settings."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

_INDEX_NAMES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")


@dataclass(frozen=True)
class Indexes:
    """Where packages come from on this machine."""

    index_url: str | None
    extra_index_urls: tuple[str, ...]
    find_links: tuple[str, ...]
    ssl_cert_file: str | None
    proxy: str | None

    @property
    def directories(self) -> tuple[str, ...]:
        """Local directories among them, which the hosts must see at the same path."""
        paths = []
        for entry in (self.index_url, *self.extra_index_urls, *self.find_links):
            path = _local(entry)
            if path:
                paths.append(path)
        return tuple(dict.fromkeys(paths))


def _local(entry: str | None) -> str | None:
    if not entry:
        return None
    if entry.startswith("file://"):
        # The pages of an index on disk point at files beside it.
        return str(Path(unquote(urlsplit(entry).path)).parent)
    return entry if entry.startswith("/") else None


def pip_config(texts: Iterable[str]) -> dict[str, str]:
    """Merge the `[global]` and `[install]` sections of pip's configuration files, later ones stronger."""
    merged: dict[str, str] = {}
    for text in texts:
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(text)
        except configparser.Error:
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                merged.update(parser.items(section))
    return merged


def indexes(env: Mapping[str, str], pip: Mapping[str, str]) -> Indexes:
    """Choose the hosts' indexes for uv from this machine's environment and pip configuration.

    pip's extra indexes are left out. pip takes the best version of all indexes, uv takes the first index that has
    the name: the same list would mean something else. uv's own extra indexes are passed on.

    Args:
        env: environment variables.
        pip: pip's configuration, `pip_config`.
    """

    def first(*values: str | None) -> str | None:
        return next((value for value in values if value), None)

    links = first(env.get("UV_FIND_LINKS", "").replace(",", " "), env.get("PIP_FIND_LINKS"), pip.get("find-links"))
    index = first(*(env.get(name) for name in _INDEX_NAMES), pip.get("index-url"))
    return Indexes(
        index_url=index,
        extra_index_urls=tuple((env.get("UV_INDEX") or env.get("UV_EXTRA_INDEX_URL") or "").split()),
        find_links=tuple((links or "").split()),
        ssl_cert_file=first(env.get("SSL_CERT_FILE"), env.get("PIP_CERT"), pip.get("cert")),
        proxy=first(env.get("HTTPS_PROXY"), env.get("https_proxy"), env.get("ALL_PROXY")),
    )


def machine_indexes() -> Indexes:
    """Read this machine's environment and pip configuration; see `indexes`."""
    home = Path.home()
    files = [Path("/etc/pip.conf"), home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    if os.environ.get("PIP_CONFIG_FILE"):
        files.append(Path(os.environ["PIP_CONFIG_FILE"]))
    return indexes(os.environ, pip_config(path.read_text() for path in files if path.is_file()))
