"""A server on loopback that speaks the hub's protocol as huggingface_hub uses it, and fails as asked."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from muster.spec.listing import Listing
from muster.weights import hub as hub_client

FILES = {
    "config.json": b'{"architectures": []}',
    "code.py": b"print('hello')\n" * 40,
    "model-1-of-2.safetensors": bytes(range(256)) * 4096 * 24,
    "model-2-of-2.safetensors": bytes(reversed(range(256))) * 4096 * 2,
}
FIRST = "model-1-of-2.safetensors"


def git_name(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


@dataclass
class Hub:
    """One repository, and what goes wrong with it."""

    model: str
    files: dict[str, bytes]
    commit: str = "a" * 40
    large: int = 10_000
    token: str | None = None
    url: str = ""
    modelscope: bool = False
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """File -> after how many bytes each of its next answers is cut."""
    refusals: dict[str, list[tuple[int, dict[str, str]]]] = field(default_factory=dict)
    """File -> status and headers of its next answers."""
    wrong: set[str] = field(default_factory=set)
    hangs: set[str] = field(default_factory=set)
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    released: threading.Event = field(default_factory=threading.Event)

    def siblings(self) -> list[dict[str, Any]]:
        rows = []
        for name, body in self.files.items():
            row: dict[str, Any] = {"rfilename": name, "size": len(body), "blobId": git_name(body)}
            if len(body) >= self.large:
                row["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
            rows.append(row)
        return rows


@contextmanager
def serving(hub: Hub, address: str = "127.0.0.1") -> Iterator[Hub]:
    """Serve a repository on loopback; its large files are redirected to another port, as to a CDN."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.log.append((self.command, path, self.headers.get("Range")))
            if self.server is front and hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.plain(401, b"", {"X-Error-Message": "Access to model is restricted."})
            if self.server is cdn and self.headers.get("Authorization"):
                return self.plain(400, b"a token came to the CDN")
            if path.startswith("/api/v1/models/"):
                return self.modelscope(path, body)
            if found := re.fullmatch(rf"/api/models/{re.escape(hub.model)}/revision/(.+)", path):
                if found[1] not in ("main", hub.commit):
                    return self.plain(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                answer = {"id": hub.model, "sha": hub.commit, "siblings": hub.siblings()}
                return self.plain(200, json.dumps(answer).encode())
            if found := re.fullmatch(rf"/{re.escape(hub.model)}/resolve/([^/]+)/(.+)", path):
                return self.resolve(found[1], found[2], body)
            if self.server is cdn and path.startswith("/blob/"):
                return self.bytes_of(path.removeprefix("/blob/"), body, {})
            return self.plain(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def resolve(self, revision: str, name: str, body: bool) -> None:
            if revision != hub.commit:
                return self.plain(404, b"", {"X-Error-Code": "RevisionNotFound"})
            if name not in hub.files:
                return self.plain(404, b"", {"X-Error-Code": "EntryNotFound"})
            content = hub.files[name]
            headers = {"X-Repo-Commit": hub.commit, "ETag": f'"{git_name(content)}"'}
            if len(content) < hub.large:
                return self.bytes_of(name, body, headers)
            headers["X-Linked-Size"] = str(len(content))
            headers["X-Linked-ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            headers["Location"] = f"http://{address}:{cdn.server_address[1]}/blob/{name}"
            return self.plain(302, b"", headers)

        def modelscope(self, path: str, body: bool) -> None:
            query = dict(part.split("=", 1) for part in urlsplit(self.path).query.split("&"))
            if path.endswith("/repo/files"):
                rows = [
                    {"Path": n, "Size": len(b), "Sha256": hashlib.sha256(b).hexdigest(), "Type": "blob"}
                    for n, b in hub.files.items()
                ]
                answer = {"Code": 200, "Data": {"Files": rows, "LatestCommitter": {"Revision": hub.commit}}}
                return self.plain(200, json.dumps(answer).encode())
            return self.bytes_of(unquote(query["FilePath"]), body, {})

        def bytes_of(self, name: str, body: bool, headers: dict[str, str]) -> None:
            if name in hub.hangs:
                hub.released.wait(60)
                return None
            if hub.refusals.get(name):
                status, more = hub.refusals[name].pop(0)
                return self.plain(status, b"", more)
            content = hub.files[name]
            if name in hub.wrong:
                content = content[:-1] + bytes([content[-1] ^ 1])
            start = 0
            if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                start = int(asked[1])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            part = content[start:]
            self.send_response(206 if start else 200)
            for key, value in {**headers, "Content-Length": str(len(part)), "Accept-Ranges": "bytes"}.items():
                self.send_header(key, value)
            self.end_headers()
            if not body:
                return None
            if hub.cuts.get(name):
                part = part[: hub.cuts[name].pop(0)]
                self.close_connection = True
            hub.sent[name] = hub.sent.get(name, 0) + len(part)
            self.wfile.write(part)
            self.wfile.flush()
            if self.close_connection:
                time.sleep(0.05)
            return None

        def plain(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    front = ThreadingHTTPServer((address, 0), Handler)
    cdn = ThreadingHTTPServer((address, 0), Handler)
    for server in (front, cdn):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://{address}:{front.server_address[1]}"
    try:
        yield hub
    finally:
        hub.released.set()
        for server in (front, cdn):
            server.shutdown()
            server.server_close()


def pin(hub: Hub, **more: Any) -> Listing:
    return hub_client.from_hub("org/model", "main", endpoint=hub.url, **more)
