"""An edge on a host of its own before two groups: keys, refusals, and what clients see of faults."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from tests import standin
from tests.conftest import Boot
from tests.deploys.conftest import GuardedTestbed, Ran
from tests.edge.live import bearer, make_certificate

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

EDGE, NAME = "node2", "edge.test"
GROUPS = {"node0": "kimi-a", "node1": "kimi-b"}
ONE = """\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = ([_each for _each in _hosts({name!r}) if _each[0] == {host!r}], {settings!r})
"""
ALL = """\
from muster.sandbox.as_inventory import hosts as _hosts
_all, _settings = _hosts({name!r}), {{"recipe": "kimi-k2-instruct", **{settings!r}}}
del _all[2][1]["gpu"], _all[2][1]["gpus"]
a, b = (_all[:1], {{**_settings, "group": "kimi-a"}}), (_all[1:2], {{**_settings, "group": "kimi-b"}})
edge = _all[2:]
"""


class Edged(GuardedTestbed):
    """Two groups of one host each, and a third host with the edge."""

    def start(self, deploy: str = "kimi_k2_instruct", *flags: str, **settings: Any) -> Any:
        edge, gateway = self.box.hosts[2].address, self.box.hosts[0].address.rpartition(".")[0] + ".1"
        place = str(self.directory / "edge.pem")
        given = {
            "client_networks": [edge, gateway],
            "monitor_networks": [edge, gateway],
            "api_key_file": str(self.directory / "engine-key"),
            "stall_timeout": 3,
            "canary_idle": 2,
            "edge_names": [NAME],
            "edge_certificate_file": f"{place}.crt",
            "edge_certificate_key_file": f"{place}.key",
        }
        return super().start(deploy, *flags, **{**given, **settings})

    def groups(self) -> None:
        for host, group in GROUPS.items():
            self.inventory = ONE.replace("{host!r}", repr(host))
            self.deploy(group=group)
        self.inventory = ALL

    def key(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `muster key`."""
        muster = str(Path(sys.executable).parent / "muster")
        command = [muster, "key", words[0], "inventory.py", *words[1:]]
        return subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def open(self) -> HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.directory / "edge.pem.crt"))
        context.check_hostname = False  # it is asked by its address
        return HTTPSConnection(self.box.hosts[2].address, 443, context=context, timeout=120)

    def ask(self, key: str, **more: Any) -> tuple[str, str]:
        """Return what became of one request: `done`, `refused` or `lost` after its answer began, and why."""
        connection = self.open()
        body = json.dumps({"model": "kimi-k2", "prompt": "1 2", "max_tokens": 20, **more})
        began = False
        try:
            connection.request("POST", "/v1/completions", body, {**bearer(key), "Content-Type": "application/json"})
            response = connection.getresponse()
            began = response.status == 200
            text = response.read()
            whole = b"[DONE]" in text if more.get("stream") else True
            return ("done" if whole else "lost") if began else "refused", f"{response.status} {text[:200]!r}"
        except (OSError, HTTPException) as error:
            return "lost" if began else "refused", repr(error)
        finally:
            connection.close()

    def taken(self, host: str) -> int:
        """Return how many requests the edge has sent to a host's engine."""
        program = (
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock');"
            "s.sendall(b'show stat\\n'); print(s.makefile().read())"
        )
        lines = self.box.exec(EDGE, ["python3", "-c", program]).stdout.splitlines()
        names = lines[0].lstrip("# ").split(",")
        rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:]]
        return next(int(row["stot"]) for row in rows if row["svname"] == f"{GROUPS[host]}_{host}")

    def ready_at(self, host: str) -> bool:
        address = next(each.address for each in self.box.hosts if each.name == host)
        try:
            with urllib.request.urlopen(f"http://{address}:29600/ready", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False


class Load:
    """Clients that ask again and again, every other one for a stream."""

    def __init__(self, there: Edged, key: str, clients: int) -> None:
        self.outcomes: list[tuple[str, str]] = []
        self._stop = threading.Event()

        def work(stream: bool) -> None:
            while not self._stop.is_set():
                self.outcomes.append(there.ask(key, stream=stream))

        self._threads = [threading.Thread(target=work, args=(index % 2 == 1,)) for index in range(clients)]

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


@pytest.fixture(scope="module")
def edged(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Edged:
    there = Edged(sandbox("edge", 3), tmp_path_factory.mktemp("edged"))
    make_certificate(there.directory / "edge.pem", (NAME,))
    (there.directory / "engine-key").write_text("VLLM_API_KEY=engine-secret\n")
    for name in GROUPS:
        standin.place(there.box.tree(name))
        there.sh(name, "mkdir -p /etc/standin; echo 0.05 >/etc/standin/token_seconds")
    there.groups()
    there.done("edge")
    return there


@pytest.fixture(scope="module")
def client(edged: Edged) -> str:
    """A key without limits."""
    ran = edged.key("add", "load")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def run(there: Edged, *flags: str, **settings: Any) -> Ran:
    return there.run("edge", "-y", *flags, **settings)


def test_a_second_run_changes_nothing(edged: Edged, client: str) -> None:
    again = run(edged, "--dry", "--json")
    assert (again.status, again.changes) == (0, {}), again.text


def test_a_key_is_in_effect_at_once_and_printed_once(edged: Edged) -> None:
    made = edged.key("add", "team", "--model", "kimi-k2", "--rate", "600", "--days", "1")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert edged.ask(key)[0] == "done"
    assert edged.ask("sk-wrong")[1].startswith("401")
    rows = json.loads(edged.key("list", "--format", "json").stdout)
    team = next(row for row in rows if row["name"] == "team")
    assert (team["requests"], team["rate"], team["models"]) == (1, 600, ["kimi-k2"])
    assert edged.key("add", "team").returncode == 2
    assert edged.key("add", "other", "--model", "kimi-k1").stderr.startswith(
        "muster: the edge: unknown model 'kimi-k1'"
    )
    assert edged.key("revoke", "team").returncode == 0
    assert edged.ask(key)[1].startswith("401")
    files = edged.sh(EDGE, "cat /etc/haproxy/muster/keys.* /etc/haproxy/haproxy.cfg; journalctl -u haproxy -o cat")
    assert key not in files
    assert "engine-secret" not in files


def test_a_key_outlives_a_restart(edged: Edged, client: str) -> None:
    edged.sh(EDGE, "systemctl restart haproxy")
    edged.wait("a request", lambda: edged.ask(client)[0] == "done", 30)


def test_an_expired_certificate_touches_nothing(edged: Edged) -> None:
    before = edged.sh(EDGE, "sha256sum /etc/haproxy/haproxy.cfg /etc/haproxy/muster/edge.pem")
    make_certificate(edged.directory / "late.pem", (NAME,), days=-1)
    place = str(edged.directory / "late.pem")
    ran = run(edged, edge_certificate_file=f"{place}.crt", edge_certificate_key_file=f"{place}.key", edge_silence=99)
    assert ran.status != 0
    assert "expired on" in ran.text
    assert edged.sh(EDGE, "sha256sum /etc/haproxy/haproxy.cfg /etc/haproxy/muster/edge.pem") == before


def test_an_edge_that_is_kept_out_is_named(edged: Edged) -> None:
    ran = run(edged, monitor_networks=[])
    assert ran.status != 0
    assert f"{EDGE} ({edged.box.hosts[2].address}) is in no network of monitor_networks" in ran.text


def test_a_killed_engine_costs_open_streams_alone_and_a_reload_nothing(edged: Edged, client: str) -> None:
    with Load(edged, client, 16) as load:
        edged.wait("load", lambda: load.counts["done"] > 16)
        assert run(edged, edge_silence=500).status == 0
        assert load.counts.keys() == {"done"}, load.outcomes
        edged.sh("node0", "pkill -KILL -f '[v]llm serve'")
        done = load.counts["done"]
        edged.wait("more load", lambda: load.counts["done"] > done + 64)
        edged.wait("ready", lambda: edged.ready_at("node0"))
        taken = edged.taken("node0")
        edged.wait("requests at the engine that is back", lambda: edged.taken("node0") > taken, 30)
    assert load.counts["refused"] == 0, [each for each in load.outcomes if each[0] == "refused"]
    assert load.counts["lost"] <= 8, load.outcomes


def test_a_hung_engine_gets_no_new_request_once_its_guard_says_so(edged: Edged, client: str) -> None:
    edged.wait("both", lambda: all(edged.ready_at(host) for host in GROUPS))
    with Load(edged, client, 16) as load:
        edged.wait("load", lambda: load.counts["done"] > 16)
        edged.sh("node0", "pkill -STOP -f '^VLLM::EngineCore'")
        edged.wait("the guard's word", lambda: not edged.ready_at("node0"), 60)
        time.sleep(2)
        first = last = edged.taken("node0")
        while not edged.ready_at("node0"):
            last = edged.taken("node0")
            time.sleep(0.2)
        assert last == first
        edged.wait("requests at the engine that is back", lambda: edged.taken("node0") > last, 30)
    assert load.counts["done"] > 16
