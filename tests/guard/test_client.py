"""The guard's command line on its host, against real guards on loopback: what can be asked again, and what waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.guard import client

from .loopback import Cluster, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, 2)
    made.start()
    try:
        made.ready()
        yield made
    finally:
        made.end()


def test_a_repeated_command_is_not_done_twice(cluster: Cluster) -> None:
    first = cluster.group()["generation"]
    early = cluster.ctl("h0", "restart", "--since", first, "--wait", "0.1")
    assert early["error"].startswith("restart: not done after 0.1 s: ")
    assert early["pending"]
    assert "error" not in cluster.ctl("h0", "restart", "--since", first, "--wait", "50")
    second = cluster.ready()["generation"]
    assert second != first
    again = cluster.ctl("h0", "restart", "--since", first, "--wait", "50")
    assert again == {"answer": "a new generation has started already"}
    assert cluster.ready()["generation"] == second

    # A stop may be repeated at will; only an operator ends it.
    assert "error" not in cluster.ctl("h1", "stop", "--wait", "50")
    assert "error" not in cluster.ctl("h0", "stop", "--wait", "50")
    assert cluster.group()["phase"] == "stopped"
    assert cluster.group()["held_by"] == ""

    # With the units stopped, what holds the group is lifted on disk, and it starts with them.
    cluster.end()
    assert (cluster.folder / "h0/state/held.json").exists()
    for host in cluster.hosts:
        assert cluster.ctl(host, "release") == {"answer": "nothing holds the group when it starts"}
    assert not (cluster.folder / "h0/state/held.json").exists()
    cluster.start()
    ready = cluster.ready()
    assert ready["phase"] == "running"
    assert ready["last_start"] > 0

    # Whoever stops it is known by a name that is one.
    assert "error" not in cluster.ctl("h0", "stop", "--by", "ann@desk", "--wait", "50")
    group = cluster.group()
    assert (group["held_by"], group["held_at"] > 1.7e9) == ("ann@desk", True)
    assert group["reason"].startswith("stopped by ann@desk since 20")
    cluster.ctl("h0", "resume", "--wait", "50")
    cluster.ctl("h0", "stop", "--by", "an\x1b[2Jn@desk", "--wait", "50")
    assert cluster.group()["held_by"] == ""


def test_nobody_answers_and_wrong_words(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.units["h1"].end()
    wait_for(lambda: "error" in cluster.ctl("h1", "status"))
    assert cluster.ctl("h1", "status")["error"].startswith("no guard answers at ")
    for words in (["nonsense"], [], ["status", "stop"], ["--wait"]):
        assert client.main(["--config", cluster.config("h1"), *words]) == 1
        assert json.loads(capsys.readouterr().out)["error"].startswith("usage: ctl --config FILE ")
