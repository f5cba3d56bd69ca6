"""A real HAProxy on loopback with the rendered configuration, and small engines behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from muster.edge import haproxy_files
from muster.edge.edge_machine import ENVIRONMENT
from muster.edge.edge_plan import EdgeGroup, edge_plan
from muster.on_host import edge_keys, edge_places
from muster.plan.endpoint import Endpoint
from muster.spec.settings import Settings
from tests import required
from tests.free_port import free_port

UNPACKED = Path(__file__).parents[2] / ".venv" / "haproxy"
PATHS = ("/v1/chat/completions", "/v1/completions")
SECONDS = 60
"""After which a test that waits has failed; nothing here is measured against it."""


def haproxy() -> tuple[list[str], dict[str, str]]:
    """Return HAProxy's command and environment, as script/setup unpacks it; without it a test is skipped, or fails.

    MUSTER_HAPROXY names another one, of another release.
    """
    if other := os.environ.get("MUSTER_HAPROXY"):
        return [other], dict(os.environ)
    program = shutil.which("haproxy", path=f"{UNPACKED}/usr/sbin{os.pathsep}{os.environ['PATH']}:/usr/sbin")
    if program is None:
        required.lacking("there is no haproxy; script/setup brings it on Debian and Ubuntu")
    libraries = [str(path) for path in (UNPACKED / "usr/lib").glob("*-linux-gnu")]
    return [program], {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that HAProxy resets is no error."""


class Engine:
    """Answers completions with its name, and `/ready` as a guard; what it got is kept."""

    def __init__(self, name: str) -> None:
        self.name, self.ready = name, True
        self.requests: list[dict[str, Any]] = []
        self.gate = threading.Event()
        """Requests that ask to wait are answered once it is set."""
        self.server = _Server(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(200 if engine.ready else 503, b"ready")

            def do_POST(self) -> None:
                body = self._body()
                asked = json.loads(body)
                engine.requests.append({"headers": dict(self.headers), "path": self.path, "bytes": len(body)})
                if asked.get("die"):
                    engine.requests[-1]["died"] = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                if engine.name in asked.get("fail", ()):
                    self._answer(500, json.dumps({"error": {"code": 500}}).encode())
                    return
                if asked.get("wait"):
                    engine.gate.wait(SECONDS)
                self._answer(200, json.dumps({"from": engine.name}).encode())

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers["Content-Length"]))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


class Answer:
    """Status, headers and JSON of an answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """`code` of an error as the OpenAI API has it; its other fields must be there."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert self.headers["Content-Type"] == "application/json"
        return str(error["code"])


class LiveEdge:
    """HAProxy before engines: group name -> model and engines."""

    def __init__(
        self,
        directory: Path,
        groups: Mapping[str, tuple[str, list[Engine]]],
        engine_keys: Mapping[str, str] = {},
        ranks: int = 1,
        **settings: Any,
    ) -> None:
        self.port, self.monitor_port, self.tree = free_port(), free_port(), directory
        self.socket = str(directory / "s")
        self.engine_keys = engine_keys
        made = Settings(edge_port=self.port, edge_monitor_port=self.monitor_port, **settings).edge
        self.plan = edge_plan(
            [
                EdgeGroup(
                    f"{name}-{index}",
                    model,
                    PATHS,
                    (Endpoint("host", "127.0.0.1", engine.port),),
                    Endpoint("host", "127.0.0.1", engine.port),
                    64,
                    "/key" if model in engine_keys else None,
                    ranks=ranks,
                )
                for name, (model, engines) in groups.items()
                for index, engine in enumerate(engines)
            ],
            made,
        )
        self.command, environment = haproxy()
        self.env = environment | {name: str(value) for name, value in ENVIRONMENT.items()}
        self.log = directory / "log"
        (directory / edge_places.OWN).mkdir()
        self.write()
        self.keys()
        self.certificate = directory / haproxy_files.CERTIFICATE
        make_certificate(self.certificate)

    def write(self) -> None:
        """Write the configuration, but for what needs the distribution's user."""
        for path, text in haproxy_files.files(self.plan, str(self.tree)).items():
            for line in ("chroot /var/lib/haproxy", "user haproxy", "group haproxy"):
                text = text.replace(f"    {line}\n", "")
            # A check that a busy machine answers late is no fault of an engine here.
            text = text.replace("timeout check 1s", f"timeout check {SECONDS}s")
            text = text.replace(edge_places.SOCKET, self.socket).replace(":29690", f":{free_port()}")
            (self.tree / path).write_text(text)
        (self.tree / haproxy_files.ENGINE_KEYS).write_text(haproxy_files.engine_keys_map(self.engine_keys))

    def keys(self, do: str = "write", **records: dict[str, Any]) -> dict[str, Any]:
        """Ask the program that keeps keys; records by the key itself."""
        named = {edge_keys.whole_files.text_sha256(key): record for key, record in records.items()}
        return edge_keys.main({"do": do, "keys": named, "tree": str(self.tree), "socket": self.socket})

    def __enter__(self) -> LiveEdge:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.command, "-W", "-f", str(self.tree / haproxy_files.CONFIGURATION)],
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait(lambda: self._loaded and self.keys("read")["running"])
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()

    def reload(self) -> None:
        """Have another process take over, as systemd does."""
        loaded = self._loaded
        self.process.send_signal(signal.SIGUSR2)
        self.wait(lambda: self._loaded > loaded)

    @property
    def _loaded(self) -> int:
        return self.log.read_text().count(" forked")

    def wait(self, holds: Any) -> None:
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def ask(self, key: str = "", path: str = PATHS[0], method: str = "POST", raw: bytes = b"", **body: Any) -> Answer:
        """Send one request on a connection of its own."""
        with self.open() as connection:
            connection.request(method, path, raw or json.dumps(body).encode(), bearer(key))
            return Answer(connection.getresponse())

    def operators(self, path: str, method: str = "GET") -> Answer:
        """Ask the port for operators, from this machine."""
        connection = http.client.HTTPConnection("127.0.0.1", self.monitor_port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path)
            return Answer(connection.getresponse())

    def metric(self, name: str, label: str = "") -> float:
        """Return the sum of one of HAProxy's own metrics, of the series with a label."""
        lines = self.operators("/metrics").body.decode().splitlines()
        rows = [line for line in lines if line.startswith(f"{name}{{") and label in line]
        return sum(float(line.rpartition(" ")[2]) for line in rows)

    def wait_until_idle(self) -> None:
        """Wait until no request is in flight: HAProxy counts one for a moment after its client has the whole answer."""
        self.wait(lambda: self.metric("haproxy_backend_current_sessions") == 0)

    def open(self) -> Connection:
        context = ssl.create_default_context(cafile=str(self.certificate))
        return Connection("127.0.0.1", self.port, context=context, timeout=SECONDS)

    def logged(self) -> list[dict[str, Any]]:
        """Return the access log's lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


class Connection(http.client.HTTPSConnection):
    """One that closes at the end of `with`."""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def record(name: str, *models: str, rate: int = 0, concurrent: int = 0, expires: int = 0) -> dict[str, Any]:
    """Return the record of a key."""
    numbers = {"rate": rate, "concurrent": concurrent, "expires": expires, "made": 1, "revoked": 0}
    return {"name": name, "models": list(models or ["*"]), **numbers}


def make_certificate(path: Path, names: tuple[str, ...] = ("localhost",), days: int = 2) -> None:
    """Write a certificate of its own making for names and 127.0.0.1, and its key, into one file and into two.

    Args:
        path: of the one; the others end in `.crt` and `.key` besides.
        names: of the DNS.
        days: until it ends; it began ten days ago.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edge")])
    now = datetime.now(timezone.utc)
    alternative = [*map(x509.DNSName, names), x509.IPAddress(ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=10))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    own = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for name, data in (
        ("", certificate.public_bytes(pem) + own),
        (".crt", certificate.public_bytes(pem)),
        (".key", own),
    ):
        Path(f"{path}{name}").write_bytes(data)
