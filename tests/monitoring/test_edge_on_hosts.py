"""A real Prometheus watches a real edge before a real group: its panels, and what faults of the edge raise."""

from __future__ import annotations

import contextlib
import json
import math
import ssl
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import pytest

from tests.conftest import Boot
from tests.deploys.conftest import GROUP
from tests.edge.live import bearer, make_certificate

from .monitored import INVENTORY, MONITOR, PATIENCE, Monitored
from .test_dashboards import BOARDS, panels
from .test_on_hosts import OF_THE_EDGE

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]

NAME = "edge.test"
CUT = """\
table ip muster-tests {{
  chain out {{
    type filter hook output priority -10; policy accept;
    ip daddr {head} meta skuid haproxy tcp dport {port} reject with tcp reset
  }}
}}
"""
TWO_GROUPS = """\
from muster.sandbox.as_inventory import hosts as _hosts
_all = _hosts({name!r})
for _name, _data in _all:
    del _data["gpus"]
    if _name == "node2":
        del _data["gpu"]
_settings = {{**{settings!r}, "recipe": "kimi-k2-instruct", "gpus": 1}}
ranks = (_all[:2], {{**_settings, "gpu_devices": [0]}})
second = (
    _all[1:2],
    {{**_settings, "gpu_devices": [1], "group": "second", "port": 8001, "rpc_port": 29551, "control_port": 29601}},
)
monitor = edge = _all[2:]
"""
WAIT = 6 * PATIENCE + 60
"""Seconds after which an alert that has not come does not come: rates look two minutes back."""


class Edged(Monitored):
    """The same, with an edge on the monitor's machine."""

    inventory = INVENTORY + "edge = monitor\n"
    days = 60

    def start(self, deploy: str = "kimi_k2_instruct", *flags: str, **settings: object) -> object:
        place = str(self.directory / f"edge-{self.days}.pem")
        make_certificate(Path(place), (NAME,), self.days)
        given = {
            "edge_names": [NAME],
            "edge_certificate_file": f"{place}.crt",
            "edge_certificate_key_file": f"{place}.key",
        }
        if deploy == "edge" and self.watches:
            flags = (*flags, "--data", "_recipe=kimi-k2-instruct")
        return super().start(deploy, *flags, **{**given, **settings})

    def connect(self) -> HTTPSConnection:
        context = ssl._create_unverified_context()
        return HTTPSConnection(self.box.hosts[2].address, timeout=60, context=context)

    def refuse(self, times: int) -> None:
        """Ask with a key that there is not, so many times on one connection."""
        with contextlib.closing(self.connect()) as connection:
            for _ in range(times):
                connection.request("GET", "/v1/models", headers=bearer("x"))
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 401

    @contextlib.contextmanager
    def asked(self, clients: int) -> Iterator[None]:
        """Have clients ask, again and again, for what takes the engine about a second."""
        ran = self.command_of("key", "add", "inventory.py", f"load-{clients}")
        assert ran.returncode == 0, ran.stderr
        key, done = bearer(ran.stdout.strip()), threading.Event()
        body = json.dumps({"model": "kimi-k2", "prompt": "1 2", "max_tokens": 400})

        def work() -> None:
            while not done.wait(0.05):
                with contextlib.suppress(OSError, HTTPException), contextlib.closing(self.connect()) as connection:
                    connection.request("POST", "/v1/completions", body, key)
                    connection.getresponse().read()

        threads = [threading.Thread(target=work) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join(60)

    def cut(self, port: int) -> None:
        """Keep the edge, and nothing else of its machine, from a port of the head."""
        rules = CUT.format(head=self.box.hosts[0].address, port=port)
        self.box.exec(MONITOR, ["nft", "-f", "-"], stdin=rules)

    def join(self) -> None:
        self.sh(MONITOR, "nft delete table ip muster-tests")


@pytest.fixture(scope="module")
def edged(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Edged:
    there = Edged(sandbox("monitoring", 3), tmp_path_factory.mktemp("monitored"))
    there.prepare_group()
    there.done("edge")
    there.watch(targets=6)
    return there


def raised(there: Edged, alert: str, undo: Callable[[], object]) -> None:
    """Wait for an alert of the edge, and for its end once what raised it is undone."""
    told = {(alert, MONITOR)}
    try:
        there.wait("the alert", lambda: there.told() == told, WAIT)
    finally:
        undo()
    there.wait("its end", lambda: there.told() == set(), WAIT)


def test_it_is_scraped_and_its_panels_have_data(edged: Edged) -> None:
    assert ("muster-edge", MONITOR) in edged.targets()
    edged.refuse(8)
    asked = [
        target["expr"].replace("$__rate_interval", "30s")
        for panel in panels(BOARDS["fleet.json"])
        if ("fleet.json", panel["title"]) in OF_THE_EDGE
        for target in panel["targets"]
    ]
    assert len(asked) == len(OF_THE_EDGE)
    for text in asked:
        edged.wait(text, lambda text=text: any(math.isfinite(value) for _, value in edged.query(text)), 60)
    again = edged.run("monitoring", "-y", "--dry", "--json")
    assert (again.status, again.changes) == (0, {}), again.text
    assert edged.told() == set()


def test_an_edge_that_is_down_is_told(edged: Edged) -> None:
    edged.sh(MONITOR, "systemctl stop haproxy")
    raised(edged, "MusterEdgeDown", lambda: edged.sh(MONITOR, "systemctl start haproxy"))


def test_a_group_that_the_edge_alone_does_not_reach_is_told_once(edged: Edged) -> None:
    """Prometheus goes on asking the guard: the rule is of HAProxy's user."""
    edged.cut(29600)
    told = {("MusterEdgeModelUnserved", MONITOR)}
    try:
        edged.wait("the alert", lambda: edged.told() == told, WAIT)
    finally:
        edged.join()
    edged.wait("its end", lambda: edged.told() == set(), WAIT)


def test_a_deliberate_stop_raises_nothing_at_the_edge(edged: Edged) -> None:
    edged.done("stop")
    edged.wait("no endpoint", lambda: edged.query("max(haproxy_backend_active_servers)")[0][1] == 0, 60)
    edged.sh(MONITOR, f"sleep {2 * PATIENCE}")
    told = edged.told()
    edged.done("resume")
    edged.wait("ready", edged.ready)
    assert told == set()


def test_a_certificate_of_three_days_is_told(edged: Edged) -> None:
    def serve(days: int) -> None:
        edged.days = days
        edged.done("edge")

    serve(3)
    raised(edged, "MusterCertificateExpiring", lambda: serve(60))


def test_errors_while_an_endpoint_is_up_are_told(edged: Edged) -> None:
    """The edge hears the guard, and its requests do not reach the engine."""
    with edged.asked(2):
        edged.cut(8000)
        raised(edged, "MusterEdgeErrors", edged.join)


def test_many_refusals_are_told(edged: Edged) -> None:
    told = {("MusterEdgeRefusing", MONITOR)}

    def refused() -> bool:
        edged.refuse(200)
        return edged.told() == told

    edged.wait("the alert", refused, WAIT)
    edged.wait("its end", lambda: edged.told() == set(), WAIT)


def test_a_lost_group_that_the_other_does_not_carry_is_told(edged: Edged) -> None:
    """The second group is planned alone, and so is lost from the start."""
    before = edged.inventory, edged.watches
    edged.inventory, edged.watches = TWO_GROUPS, ()
    edged.done("edge", edge_max_requests=2)
    with contextlib.ExitStack() as load:
        load.enter_context(edged.asked(6))
        raised(edged, "MusterEdgeCannotCarry", load.close)
    edged.inventory, edged.watches = before
    edged.done("edge")


def test_two_groups_of_one_host_are_watched_from_one_run(edged: Edged) -> None:
    """The second is planned alone: what watches it asks no group, and so comes last here."""
    edged.inventory, edged.watches = TWO_GROUPS, ()
    edged.done("monitoring")
    again = edged.run("monitoring", "-y", "--dry", "--json")
    assert (again.status, again.changes) == (0, {}), again.text
    asked = 'up{job="muster-node",host="node1"} == 1'
    edged.wait(
        "both groups of a host", lambda: {row["group"] for row, _ in edged.query(asked)} == {GROUP, "second"}, 60
    )
    assert ("muster-edge", MONITOR) in edged.targets()
    unknown = edged.run("monitoring", "-y", "--data", "group=first")
    assert "unknown group 'first'" in unknown.text
