"""Edges on sandbox hosts before groups of stand-in engines, and clients that ask them."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

from muster.sandbox import Sandbox
from tests import standin
from tests.deploys.conftest import GuardedTestbed
from tests.edge.live import bearer, make_certificate

NAME = "edge.test"
HUNG = 90
"""Seconds in which a guard tells of an engine that is stopped: between two steps no gauge shows a request, and it waits
60 s for a canary."""
_ONE = """\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = ([_each for _each in _hosts({{name!r}}) if _each[0] in {hosts!r}], {{settings!r}})
"""
_ALL = """\
from muster.sandbox.as_inventory import hosts as _hosts
_of = {{{{_each[0]: _each for _each in _hosts({{name!r}})}}}}
_settings = {{{{"recipe": "kimi-k2-instruct", **{{settings!r}}}}}}
for _host in {bare!r}:
    del _of[_host][1]["gpu"], _of[_host][1]["gpus"]
"""
_GROUP = """\
{variable} = ([_of[_host] for _host in {hosts!r}], {{{{**_settings, "group": {group!r}}}}})
"""
_EDGE = """\
edge = [_of[_host] for _host in {edges!r}]
"""
_ASK_HAPROXY = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock');"
    "s.sendall(sys.argv[1].encode() + b'\\n'); print(s.makefile().read())"
)


@dataclass(frozen=True)
class Layout:
    """Which host does what.

    Args:
        groups: group -> its hosts, the head first.
        edges: hosts with an edge.
    """

    groups: Mapping[str, tuple[str, ...]]
    edges: tuple[str, ...]

    def one(self, group: str) -> str:
        """Return the inventory of one group alone, for `str.format` with name and settings."""
        return _ONE.format(hosts=self.groups[group])

    @property
    def whole(self) -> str:
        """The inventory of all groups and the edges, likewise."""
        members = {host for hosts in self.groups.values() for host in hosts}
        groups = [
            _GROUP.format(variable=group.replace("-", "_"), hosts=hosts, group=group)
            for group, hosts in self.groups.items()
        ]
        bare = tuple(host for host in self.edges if host not in members)
        return _ALL.format(bare=bare) + "".join(groups) + _EDGE.format(edges=self.edges)

    def group_of(self, host: str) -> str:
        return next(group for group, hosts in self.groups.items() if host in hosts)


class Edged(GuardedTestbed):
    """Groups of stand-in engines, and the edges before them."""

    def __init__(self, box: Sandbox, directory: Path, layout: Layout) -> None:
        super().__init__(box, directory)
        self.layout = layout

    def bring_up(self, token_seconds: float = 0.05) -> None:
        """Deploy the groups and the edges."""
        self.prepare(token_seconds)
        for group in self.layout.groups:
            self.inventory = self.layout.one(group)
            self.deploy(group=group)
        self.inventory = self.layout.whole
        self.done("edge")

    def prepare(self, token_seconds: float = 0.05) -> None:
        """Make the certificate and the engines' key, and give hosts their stand-in."""
        make_certificate(self.directory / "edge.pem", (NAME,))
        (self.directory / "engine-key").write_text("VLLM_API_KEY=engine-secret\n")
        for name in (host for hosts in self.layout.groups.values() for host in hosts):
            standin.place(self.box.tree(name))
            self.sh(name, f"mkdir -p /etc/standin; echo {token_seconds} >/etc/standin/token_seconds")

    def start(self, deploy: str = "kimi_k2_instruct", *flags: str, **settings: Any) -> Any:
        allowed = [*(self.address(host) for host in self.layout.edges), self.gateway]
        place = str(self.directory / "edge.pem")
        given = {
            "client_networks": allowed,
            "monitor_networks": allowed,
            "api_key_file": str(self.directory / "engine-key"),
            "stall_timeout": 3,
            "canary_idle": 2,
            "edge_names": [NAME],
            "edge_certificate_file": f"{place}.crt",
            "edge_certificate_key_file": f"{place}.key",
        }
        return super().start(deploy, *flags, **{**given, **settings})

    @property
    def gateway(self) -> str:
        """This machine's address in the sandbox's network."""
        return self.box.hosts[0].address.rpartition(".")[0] + ".1"

    def address(self, host: str) -> str:
        return next(each.address for each in self.box.hosts if each.name == host)

    def key(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `muster key`."""
        return self.command_of("key", words[0], "inventory.py", *words[1:])

    def new_key(self, name: str) -> str:
        """Make a key without limits, on every edge."""
        ran = self.key("add", name)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    def open(self, edge: str, timeout: float = 120) -> HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.directory / "edge.pem.crt"))
        context.check_hostname = False  # it is asked by its address
        return HTTPSConnection(self.address(edge), 443, context=context, timeout=timeout)

    def ask(self, key: str, edge: str = "", **more: Any) -> tuple[str, str]:
        """Return what became of one request: `done`, `refused`, `lost` after its answer began, `unreached`; and why."""
        connection = self.open(edge or self.layout.edges[0])
        body = json.dumps({"model": "kimi-k2", "prompt": "1 2", "max_tokens": 20, **more})
        began = reached = False
        try:
            connection.connect()
            reached = True
            connection.request("POST", "/v1/completions", body, {**bearer(key), "Content-Type": "application/json"})
            response = connection.getresponse()
            began = response.status == 200
            text = response.read()
            # An engine that dies within a stream ends it with an error, and says that it is done.
            whole = b"[DONE]" in text and b'"error"' not in text if more.get("stream") else True
            return ("done" if whole else "lost") if began else "refused", f"{response.status} {text[:200]!r}"
        except (OSError, HTTPException) as error:
            return ("lost" if began else "refused") if reached else "unreached", repr(error)
        finally:
            connection.close()

    def status_of(self, key: str, edge: str) -> int:
        """Return the status that an edge answers a short request with."""
        connection = self.open(edge)
        try:
            connection.request("GET", "/v1/models", headers=bearer(key))
            return connection.getresponse().status
        finally:
            connection.close()

    def seen_by(self, edge: str, host: str) -> dict[str, str]:
        """Return what an edge's HAProxy counts and says of a head's engine."""
        return self.servers_at(edge)[f"{self.layout.group_of(host)}_{host}"]

    def servers_at(self, edge: str) -> dict[str, dict[str, str]]:
        """Return engine, as HAProxy calls it -> what an edge counts and says of it."""
        lines = self.ask_haproxy(edge, "show stat").splitlines()
        names = lines[0].lstrip("# ").split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]
        return {row["svname"]: row for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")}

    def ask_haproxy(self, edge: str, command: str) -> str:
        """Return what an edge's HAProxy answers at its own socket."""
        return self.box.exec(edge, ["python3", "-c", _ASK_HAPROXY, command]).stdout

    def taken(self, host: str, edge: str = "") -> int:
        """Return how many requests an edge has sent to a head's engine."""
        return int(self.seen_by(edge or self.layout.edges[0], host)["stot"])

    def ready_at(self, host: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address(host)}:29600/ready", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False


class Load:
    """Clients that ask again and again, every other one for a stream.

    A client that has more than one edge asks the next one where it gets no connection, as with two records of a name.
    """

    def __init__(
        self, there: Edged, key: str, clients: int, edges: Sequence[str] = (), *, pause: float = 0.0, **body: Any
    ) -> None:
        """`pause`: seconds that each client waits after each answer."""
        self.outcomes: list[tuple[str, str]] = []
        self._stop = threading.Event()
        self._began = [time.monotonic()] * clients
        offered = tuple(edges) or there.layout.edges[:1]

        def work(index: int) -> None:
            own = offered[index // 2 % len(offered) :] + offered[: index // 2 % len(offered)]
            while not self._stop.is_set():
                outcome = "unreached", ""
                self._began[index] = time.monotonic()
                for edge in own:
                    outcome = there.ask(key, edge, stream=index % 2 == 1, **body)
                    if outcome[0] != "unreached":
                        break
                self.outcomes.append(outcome)
                # What is refused at once must not be all that this machine does.
                self._stop.wait(pause if outcome[0] == "done" else max(pause, 0.1))

        self._threads = [threading.Thread(target=work, args=(index,)) for index in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(180)

    @property
    def counts(self) -> Counter[str]:
        return Counter(what for what, _ in self.outcomes)

    def all_asked_since(self, moment: float) -> bool:
        """Whether what every client waits for now was asked after a moment."""
        return min(self._began) > moment

    def others(self, *expected: str) -> Iterable[tuple[str, str]]:
        """Return the outcomes that are none of these."""
        return [each for each in self.outcomes if each[0] not in expected]
