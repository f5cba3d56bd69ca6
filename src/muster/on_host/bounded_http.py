"""HTTP with bounds: on size, on time, on redirects, and on the hosts that see credentials.

The other side may be a hub, an index, a mirror or an engine; none is trusted. Every way in which an answer can be
missing or wrong ends in `HttpError`, in words, within the deadline.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import IO, NamedTuple

from muster.on_host.http_bounds import (
    Deadline,
    HttpError,
    Response,
    WriteError,
    begins_at,
    length_of,
    origin,
    redirected,
    retry_after,
    visible,
)

_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 1 << 20
_WINDOW, _SLOWEST = 180.0, 1024
"""A download that brings less than so many bytes a second over so many seconds has stalled."""


class Answer(NamedTuple):
    """A complete answer of status 200 to 299."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Client:
    """Requests through one proxy, trusting one set of certificate authorities.

    Args:
        proxy: address of an HTTP proxy; None: none, or the environment's.
        cafile: certificate authorities in PEM; None: the system's.
        environment: whether `HTTPS_PROXY` and its like count where `proxy` is None.
        redirects: how many are followed; never from https to http, nor to another scheme.
    """

    def __init__(
        self, *, proxy: str | None = None, cafile: str | None = None, environment: bool = False, redirects: int = 5
    ) -> None:
        self._proxy, self._cafile, self._environment, self._redirects = proxy, cafile, environment, redirects

    def get(
        self,
        url: str,
        *,
        limit: int,
        seconds: float = 30.0,
        headers: Mapping[str, str] | None = None,
        credentials: str | None = None,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Answer:
        """Return a whole answer.

        Args:
            url: of http or https.
            limit: bytes of the body; a larger one is refused.
            seconds: for all of it, redirects included.
            headers: to send.
            credentials: value of `Authorization`, sent to the origin of `url` and to no other.
            method, body: of the request.

        Raises:
            HttpError: no answer, one of another status, or one beyond the bounds.
        """
        with self._opened(method, url, headers or {}, credentials, body, seconds, seconds) as response:
            if method == "HEAD":
                return Answer(response.status, response.headers, b"")
            length = length_of(response.headers)
            if length is not None and length > limit:
                raise HttpError(f"the answer has {length} bytes; at most {limit} are taken", response.status)
            data = response.read(limit + 1)
            if len(data) > limit:
                raise HttpError(f"the answer has more than {limit} bytes", response.status)
            return Answer(response.status, response.headers, data)

    def download(
        self,
        url: str,
        file: IO[bytes],
        *,
        size: int,
        start: int = 0,
        seconds: float = 30.0,
        credentials: str | None = None,
        window: float = _WINDOW,
    ) -> None:
        """Append to a file until it has its size, continuing where it ends.

        Args:
            url: of http or https.
            file: open for appending, `start` bytes long; truncated where the other side begins at the first byte.
            size: bytes of the whole file; not one more is written.
            start: bytes that are here.
            seconds: until the first byte, and between two pieces.
            credentials: as in `get`.
            window: seconds over which the rate is judged.

        Raises:
            HttpError: as `get`; also a stalled or endless body. What has arrived is in the file.
            WriteError: the file cannot be written.
        """
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._opened("GET", url, headers, credentials, None, seconds, None) as response:
            if start and (response.status != 206 or not begins_at(response.headers, start)):
                if response.status == 206:
                    raise HttpError("the answer is another range than asked for", response.status)
                file.truncate(0)
                file.seek(0)
                start = 0
            length = length_of(response.headers)
            if length is not None and length > size - start:
                raise HttpError(f"the file has {start + length} bytes, not {size}", response.status)
            since, mark = time.monotonic(), start
            while start < size:
                # read1 returns what is there: a trickle shows as a trickle.
                piece = response.read1(min(_PIECE, size - start))
                if not piece:
                    break
                try:
                    file.write(piece)
                except OSError as error:
                    raise WriteError(f"cannot write: {error.strerror}") from None
                start += len(piece)
                if time.monotonic() - since > window:
                    if start - mark < _SLOWEST * window:
                        raise HttpError(f"only {start - mark} bytes in {window:.0f} s")
                    since, mark = time.monotonic(), start
            else:
                if length is None and response.read1(1):
                    raise HttpError(f"the file has more than {size} bytes", response.status)
            if start < size:
                raise HttpError(f"{start} of {size} bytes arrived")

    @contextlib.contextmanager
    def _opened(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        credentials: str | None,
        body: bytes | None,
        seconds: float,
        whole: float | None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request, follow redirects, and give the answer; it is read within `whole` seconds, or at its pace."""
        deadline = Deadline(whole or 2 * seconds)
        connections: list[http.client.HTTPConnection] = []
        if credentials and not (credentials.isascii() and credentials.isprintable()):
            raise HttpError("the credentials hold a line break or another character that no header may have")
        try:
            first = origin(url)
            for _ in range(self._redirects + 1):
                given = {**headers, "Accept-Encoding": "identity", "User-Agent": "muster"}
                if credentials and origin(url) == first:
                    given["Authorization"] = credentials
                response = self._send(method, url, given, body, seconds, deadline, connections)
                where = response.headers.get("Location")
                if response.status not in _REDIRECTS or not where:
                    break
                url = redirected(url, where)
            else:
                raise HttpError(f"more than {self._redirects} redirects", response.status)
            if not 200 <= response.status < 300:
                # The other side's own words are read within the same bounds, for who asked a question.
                text = visible(response.read1(500).decode("utf-8", "replace")) if method != "HEAD" else ""
                wait = retry_after(response.headers.get("Retry-After"))
                raise HttpError(f"HTTP {response.status}" + (f": {text}" if text else ""), response.status, wait)
            if whole is None:
                deadline.close()
            yield response
        except (HttpError, WriteError):
            raise
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            if deadline.passed:
                raise HttpError(f"no whole answer within {deadline.seconds:.0f} s") from None
            raise HttpError(_words(error, seconds)) from None
        else:
            if deadline.passed:
                raise HttpError(f"no whole answer within {deadline.seconds:.0f} s")
        finally:
            deadline.close()
            for each in connections:
                each.close()

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
        deadline: Deadline,
        connections: list[http.client.HTTPConnection],
    ) -> http.client.HTTPResponse:
        scheme, host, port = origin(url)
        parts = urllib.parse.urlsplit(url)
        target = urllib.parse.quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_AS_IS)
        proxy = self._proxy_for(scheme, host)
        near, near_port, login = (host, port, {}) if proxy is None else _proxy_parts(proxy)
        connection: http.client.HTTPConnection
        if scheme == "https":
            import ssl  # most host programs need no TLS

            context = ssl.create_default_context(cafile=self._cafile)
            connection = http.client.HTTPSConnection(near, near_port, timeout=seconds, context=context)
            if proxy is not None:
                connection.set_tunnel(host, port, login)
                login = {}
        else:
            connection = http.client.HTTPConnection(near, near_port, timeout=seconds)
            if proxy is not None:
                target = f"http://{parts.netloc.rpartition('@')[2]}{target}"
        connection._create_connection = deadline.connect  # type: ignore[attr-defined]
        connection.response_class = Response
        connections.append(connection)
        connection.request(method, target, body, {**headers, **login})
        return connection.getresponse()

    def _proxy_for(self, scheme: str, host: str) -> str | None:
        if self._proxy is not None or not self._environment:
            return self._proxy
        if urllib.request.proxy_bypass(host):
            return None
        return urllib.request.getproxies().get(scheme)


def answers(url: str, seconds: float) -> bool:
    """Return whether an address answers 200 within seconds, without a redirect."""
    try:
        return Client(redirects=0).get(url, limit=_PIECE, seconds=seconds).status == 200
    except HttpError:
        return False


_AS_IS = "/?&=%:@!$'()*+,;~#[]-._"
"""Characters of an address that are sent as they stand; a space or a control character is not."""


def _proxy_parts(proxy: str) -> tuple[str, int, dict[str, str]]:
    parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
    if not parts.hostname:
        raise HttpError("the proxy has no host name")
    login = {}
    if parts.username is not None:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        login = {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return parts.hostname, parts.port or 80, login


def _words(error: Exception, seconds: float) -> str:
    if isinstance(error, socket.timeout):  # TimeoutError only since Python 3.10
        return f"nothing for {seconds:.0f} s"
    if isinstance(error, http.client.IncompleteRead):
        return f"the answer ended after {len(error.partial)} bytes"
    text = visible(str(error))[:200]
    if isinstance(error, OSError):
        return error.strerror or text or type(error).__name__
    return f"not an answer of HTTP ({type(error).__name__}{': ' + text if text else ''})"
