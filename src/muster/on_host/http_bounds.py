"""What keeps HTTP within bounds: a deadline that cuts connections, guarded answers, and headers read with suspicion."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import math
import socket
import threading
import time
import urllib.parse
from typing import Any

_LONGEST_WAIT = 300.0


class HttpError(OSError):
    """No usable answer.

    Args:
        text: what happened, without the address.
        status: of the answer, where there was one.
        wait: seconds for which the other side asked to wait, bounded; None where it did not.
    """

    def __init__(self, text: str, status: int | None = None, wait: float | None = None) -> None:
        super().__init__(text)
        self.status, self.wait = status, wait


class WriteError(OSError):
    """The file of a download cannot be written: a fault of this machine, not of the other side."""


class Deadline:
    """Cuts the connections of one request when its time is over, whatever they are doing."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.passed = seconds, False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True
        self._timer.start()

    def connect(self, *arguments: Any, **options: Any) -> socket.socket:
        """Open a connection that the deadline cuts."""
        connection = socket.create_connection(*arguments, **options)
        self._sockets.append(connection.dup())  # TLS takes over the other descriptor
        if self.passed:
            self._pass()
        return connection

    def _pass(self) -> None:
        self.passed = True
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let the connections go."""
        self._timer.cancel()
        for each in self._sockets:
            each.close()


class _NoNegativeReads:
    """A response's stream. A chunk that claims a length of -1 would otherwise be read without end, into memory."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> Any:
        """Read at most so many bytes."""
        if size < 0:
            raise HttpError("the answer has a chunk of negative length")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Response(http.client.HTTPResponse):
    """An answer that reads no chunk of negative length."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        stream: Any = _NoNegativeReads(self.fp)
        self.fp = stream


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address.

    Raises:
        HttpError: it is none of http or https.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise HttpError(f"'{url[:200]}' is not an address: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise HttpError(f"'{url[:200]}' is not an address of http or https")
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80)


def is_private_to(url: str) -> bool:
    """Whether only the host of an address reads what is sent to it: https, or this machine itself."""
    scheme, host, _ = origin(url)
    return scheme == "https" or host in ("localhost", "::1") or host.startswith("127.")


def retry_after(text: str | None) -> float | None:
    """Return the seconds that a `Retry-After` asks for, from 0 to 300; None where it is neither number nor date."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError, IndexError, OverflowError, OSError):
            return None
    return None if math.isnan(seconds) else min(_LONGEST_WAIT, max(0.0, seconds))


def length_of(headers: http.client.HTTPMessage) -> int | None:
    """Return the length that headers give; None where they give none, or no number."""
    text = (headers.get("Content-Length") or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def begins_at(headers: http.client.HTTPMessage, start: int) -> bool:
    """Whether a partial answer begins at an offset."""
    return (headers.get("Content-Range") or "").strip().startswith(f"bytes {start}-")


def redirected(url: str, where: str) -> str:
    """Return where a redirect leads.

    Raises:
        HttpError: from https to http, or to something else than the two.
    """
    new = urllib.parse.urljoin(url, where)
    if origin(url)[0] == "https" and origin(new)[0] != "https":
        raise HttpError("a redirect from https to http")
    return new


def visible(text: str) -> str:
    """Return foreign text on one line, without control characters."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
