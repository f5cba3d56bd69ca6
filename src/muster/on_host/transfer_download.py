"""Files from addresses of http, https or this host: in ranges, within bounds, with credentials for one host only."""

from __future__ import annotations

import base64
import contextlib
import netrc
import os
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from muster.on_host import transfer_store as store
from muster.on_host.bounded_http import Client
from muster.on_host.http_bounds import HttpError, WriteError, is_private_to

STALL = 180.0
"""Seconds without progress after which a download has stalled."""
_ATTEMPTS = 5
_PASSING = (408, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 60.0
_PIECE = 4 << 20
Entries = list[dict[str, Any]]


def fetch_each(source: dict[str, Any], urls: dict[str, str], lacking: Entries, directory: str) -> Iterator[str]:
    """Fetch files from addresses that support ranges; retry where that can help."""
    client = client_of(source)

    def one(entry: dict[str, Any]) -> str:
        url = urls[entry["path"]]
        where = urllib.parse.urlsplit(url).netloc.rpartition("@")[2] or "this host"
        place = store.inside(directory, entry["path"]) + store.WAN
        for attempt in range(_ATTEMPTS):
            try:
                return _ranged(client, url, place, entry, source)
            except WriteError as error:
                raise OSError(f"{entry['path']}: {error}") from None
            except HttpError as error:
                again = error.status is None or error.status in _PASSING
                if not again or attempt == _ATTEMPTS - 1:
                    see = "; see the pinned revision" if error.status == 404 else ""
                    raise OSError(f"{where} does not deliver {entry['path']}: {error}{see}") from None
                time.sleep(min(_LONGEST_WAIT, 2.0**attempt if error.wait is None else error.wait))
            except OSError as error:
                raise OSError(f"{where} does not deliver {entry['path']}: {error.strerror or error}") from None
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        yield from pool.map(one, lacking)


def client_of(source: dict[str, Any]) -> Client:
    """Return what asks addresses through the source's proxy, trusting its certificate authorities."""
    return Client(proxy=source.get("proxy"), cafile=source.get("ssl_cert_file"))


def credentials_for(url: str, source: dict[str, Any]) -> str | None:
    """Return the `Authorization` for an address: the source's token, or root's netrc entry for its host.

    Raises:
        HttpError: a token would go to another host than this one in clear.
    """
    token = token_of(source)
    if token:
        if not is_private_to(url):
            raise HttpError("the token is not sent over http, where others could read it; use https")
        return f"Bearer {token}"
    known = None
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        known = netrc.netrc(os.path.expanduser("~/.netrc")).hosts.get(urllib.parse.urlsplit(url).hostname or "")
    return "Basic " + base64.b64encode(f"{known[0]}:{known[2]}".encode()).decode() if known else None


def _ranged(client: Client, url: str, place: str, entry: dict[str, Any], source: dict[str, Any]) -> str:
    with open(place, "ab") as handle:
        if handle.tell() > entry["size"]:
            handle.truncate(0)
            handle.seek(0)
        if urllib.parse.urlsplit(url).scheme == "file":
            append_file(urllib.parse.unquote(urllib.parse.urlsplit(url).path), handle, entry["size"])
        elif handle.tell() < entry["size"]:
            client.download(
                url,
                handle,
                size=entry["size"],
                start=handle.tell(),
                seconds=source.get("timeout", 30),
                credentials=credentials_for(url, source),
                window=source.get("stall", STALL),
            )
    return str(entry["path"])


def token_of(source: dict[str, Any]) -> str | None:
    """Return the token of a source."""
    return (source.get("token") or {}).get("text")


def append_file(origin: str, copy: IO[bytes], size: int) -> None:
    """Append a file of this host, continuing where the copy ends, up to a size."""
    with open(origin, "rb", buffering=0) as handle:
        handle.seek(copy.tell())
        while copy.tell() < size:
            piece = handle.read(min(_PIECE, size - copy.tell()))
            if not piece:
                raise OSError(f"{origin} has {copy.tell()} of {size} bytes")
            copy.write(piece)
