"""Recipes of one's own on two hosts: every host answers, an engine over both, embeddings, a kill and the return."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.sandbox import Sandbox, simulated_gpus, tiny_model
from tests import guard_answers
from tests.deploys.conftest import HOSTS, REPOSITORY, GuardedTestbed

pytestmark = pytest.mark.sandbox

NAME = "layouts"
UNIT = f"muster-{NAME}.service"
RECIPE = {
    "name": NAME,
    "title": "Layouts",
    "model": "kimi-k2",
    "min_vllm": "0.32.0",
    "context": 512,
    "shape": dict(tiny_model.SHAPE),
    "strategies": {
        "each-answers": {
            "about": "Two ranks on each host.",
            "load_balancing": "hybrid",
            "sizes": {"tp": 1, "dp": "all"},
        },
        "tp-hosts": {"about": "One engine over both hosts.", "min_hosts": 2, "sizes": {"tp": "all"}},
    },
    "defaults": {"any": "each-answers"},
}


class Layouts(GuardedTestbed):
    """Two hosts of two GPUs each, and a recipe of one's own."""

    inventory = (
        "from muster.sandbox.as_inventory import hosts as _hosts\n"
        "hosts = ([(_name, {{**_data, 'gpus': 2}}) for _name, _data in _hosts({name!r})], {settings!r})\n"
    )

    def serve(self, strategy: str, **of_recipe: object) -> str:
        recipe, script = self.directory / "layouts.yaml", self.directory / "serve.py"
        recipe.write_text(json.dumps({**RECIPE, **of_recipe}))
        script.write_text(f"from muster.deploys.serve import serve\n\nserve({str(recipe)!r})\n")
        return self.done(os.path.relpath(script.with_suffix(""), REPOSITORY / "deploys"), strategy=strategy).text

    @property
    def group(self) -> dict[str, object]:
        return guard_answers.group_status(self.box, HOSTS[0], NAME)


@pytest.fixture
def layouts(box: Sandbox, tmp_path: Path) -> Iterator[Layouts]:
    there = Layouts(box, tmp_path)
    there.boot()
    there.clear()
    was = {name: box.gpus(name) for name in HOSTS}
    for name in HOSTS:
        box.set_gpus(name, simulated_gpus.healthy("H200", 2))
    yield there
    there.clear()
    for name in HOSTS:
        box.set_gpus(name, was[name])


def kill_and_return(layouts: Layouts, host: str, title: str) -> None:
    """Kill one process of the engine; the group comes back as another generation."""
    before = layouts.group["generation"]
    layouts.sh(host, f"pkill -KILL -f '^VLLM::{title}'")
    layouts.wait("another generation", lambda: layouts.group.get("generation") not in (None, before))
    layouts.wait("every rank answers again", lambda: layouts.group.get("ready"), 120)


def test_every_host_answers_for_its_own_ranks_and_the_head_watches_all(layouts: Layouts) -> None:
    said = layouts.serve("each-answers")
    assert "DP ranks 0 to 1 each answered" in said
    assert "DP ranks 2 to 3 each answered" in said
    assert [layouts.answers(host=host, rank=rank) for host in (0, 1) for rank in (0, 1)] == [True] * 4
    engines = layouts.group["engines"]
    assert isinstance(engines, list)
    assert [engine["dp_rank"] for engine in engines] == [0, 1, 2, 3]
    kill_and_return(layouts, "node1", "EngineCore_DP3")
    assert [layouts.answers(host=host, rank=rank) for host in (0, 1) for rank in (0, 1)] == [True] * 4


def test_an_engine_over_two_hosts_comes_back_after_its_follower_died(layouts: Layouts) -> None:
    brought = {"files": {"own.jinja": {"text": "{{ messages }}"}}, "flags": {"chat-template": "own.jinja"}}
    assert "the endpoint answered" in layouts.serve("tp-hosts", **brought)
    for name in HOSTS:
        (template,) = layouts.sh(name, f"find /etc/muster/{NAME}/files -type f").splitlines()
        assert layouts.sh(name, f"setpriv --reuid=muster --clear-groups cat {template}") == "{{ messages }}"
        assert f"--chat-template {template}" in layouts.sh(name, "pgrep -af '/opt/standin/bin/vllm serve'")
    assert layouts.answers(host=0, rank=0)
    assert not layouts.answers(host=1, rank=0)
    kill_and_return(layouts, "node1", "Worker")
    assert layouts.answers(host=0, rank=0)


def embeds(layouts: Layouts, host: int) -> bool:
    """Whether a host's endpoint answers an embedding right now."""
    body = json.dumps({"model": "kimi-k2", "input": "1 2 3"}).encode()
    url = f"http://{layouts.box.hosts[host].address}:8000/v1/embeddings"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=5) as response:
            return bool(json.load(response)["data"][0]["embedding"])
    except OSError:
        return False


def test_a_model_that_embeds_becomes_ready_and_comes_back(layouts: Layouts) -> None:
    said = layouts.serve("each-answers", endpoint="embeddings", flags={"runner": "pooling"})
    assert said.count("the endpoint answered 2 requests, each by a DP rank of the engine's choice") == 2
    assert [embeds(layouts, host) for host in (0, 1)] == [True, True]
    assert not layouts.answers(host=0)
    layouts.wait("/ready says 200", layouts.ready, 30)
    kill_and_return(layouts, "node1", "EngineCore_DP3")
    assert [embeds(layouts, host) for host in (0, 1)] == [True, True]
