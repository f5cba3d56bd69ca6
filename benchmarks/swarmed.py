"""aria2 for comparison: BitTorrent with a private tracker, a secret infohash and required encryption, or without."""

from __future__ import annotations

import hashlib
import http.server
import os
import socket
import struct
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from links import Link

PIECE = 1 << 20
SECONDS = 600


def bencode(value: Any) -> bytes:
    """Return a value as BitTorrent writes it."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


def torrent(origin: Path, tracker: str) -> bytes:
    """Return the torrent of a directory, with a salt that makes its infohash, the key of the encryption, a secret."""
    names = sorted(path.name for path in origin.iterdir())
    body = b"".join((origin / name).read_bytes() for name in names)
    pieces = b"".join(hashlib.sha1(body[at : at + PIECE]).digest() for at in range(0, len(body), PIECE))
    files = [{"length": (origin / name).stat().st_size, "path": [name]} for name in names]
    info = {"name": origin.name, "piece length": PIECE, "pieces": pieces, "files": files, "private": 1}
    return bencode({"announce": tracker, "info": {**info, "salt": os.urandom(32)}})


def aria2(
    hosts: Sequence[Link], homes: Sequence[Path], origin: Path, place: Path, *, encrypted: bool = True
) -> list[float]:
    """Time aria2: seconds until each receiver has all pieces."""
    gateway = hosts[0].address.rsplit(".", 1)[0] + ".1"
    peers: set[tuple[str, int]] = set()

    class Tracker(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            peers.add((self.client_address[0], int(query["port"][0])))
            others = [peer for peer in peers if peer[0] != self.client_address[0]]
            packed = b"".join(socket.inet_aton(address) + struct.pack(">H", port) for address, port in others)
            body = bencode({"interval": 5, "min interval": 1, "peers": packed})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer((gateway, 0), Tracker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    metainfo = place / "bench.torrent"
    metainfo.write_bytes(torrent(origin, f"http://{gateway}:{server.server_address[1]}/announce"))
    hook = place / "done.sh"
    hook.write_text('#!/bin/sh\ndate +%s.%N > "$DONE.new" && mv "$DONE.new" "$DONE"\n')
    hook.chmod(0o755)
    children, marks = [], []
    started = time.time()
    try:
        for number, (host, home) in enumerate(zip(hosts, homes, strict=True)):
            home.mkdir(exist_ok=True)
            marks.append(place / f"done-{number}")
            marks[-1].unlink(missing_ok=True)
            options = ["--no-conf", "-q", "--enable-dht=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false"]
            options += ["--seed-ratio=0", "--file-allocation=none", "--bt-tracker-interval=1", "--bt-max-peers=0"]
            options += [f"--on-bt-download-complete={hook}", "--allow-overwrite=true", "--listen-port=6881"]
            options += ["--bt-require-crypto=true", "--bt-min-crypto-level=arc4"] if encrypted else []
            options += ["--bt-seed-unverified=true"] if number == 0 else []
            where = origin.parent if number == 0 else home
            argv = host.argv(["aria2c", *options, f"--dir={where}", str(metainfo)])
            children.append(subprocess.Popen(argv, env={**os.environ, "DONE": str(marks[-1])}))
        while not all(mark.exists() for mark in marks[1:]) and time.time() - started < SECONDS:
            time.sleep(0.1)
        time.sleep(0.2)
        return [float(mark.read_text()) - started for mark in marks[1:]]
    finally:
        for child in children:
            child.kill()
            child.wait()
        server.shutdown()
        server.server_close()
