"""Recipes of one's own with the real vLLM on one host: a model that embeds, a kill and the return."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from muster.sandbox import tiny_model
from tests import guard_answers
from tests.conftest import Boot
from tests.engine.conftest import Real
from tests.engine.test_real_vllm import RECOVERY

pytestmark = [pytest.mark.sandbox, pytest.mark.engine, pytest.mark.nightly]

NAME = "tiny"
RECIPE: dict[str, Any] = {
    "name": NAME,
    "title": "Tiny",
    "model": "org/tiny",
    "min_vllm": "0.32.0",
    "context": tiny_model.MAX_LENGTH,
    "strategies": {"tp": {"about": "One host.", "hosts": 1}},
    "defaults": {"any": "tp"},
}


class Own(Real):
    """One host that serves recipes of one's own, one after the other."""

    def recipe(self, **more: Any) -> str:
        path = self.state / "tiny.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**RECIPE, **more}))
        return str(path)

    def muster(self, command: str, recipe: str, *words: str) -> str:
        done = self.run("muster", command, "inventories/sandbox.py", recipe, "--data", "strategy=tp", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def post(self, path: str, **body: Any) -> Any:
        url = f"http://{self.head}:8000{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def status(self) -> dict[str, Any]:
        return guard_answers.group_status(self.box, self.box.hosts[0].name, NAME)


@pytest.fixture(scope="module")
def own(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Own:
    return Own(sandbox("own", 1), tmp_path_factory.mktemp("state"))


def test_a_model_that_embeds_is_asked_measured_and_comes_back(own: Own, tmp_path: Path) -> None:
    load = {"dataset-name": "random", "random-input-len": 32, "random-output-len": 1, "num-prompts": 4}
    recipe = own.recipe(endpoint="embeddings", flags={"runner": "pooling"}, bench={"tiny": load})
    said = own.muster("deploy", recipe, "-y")
    assert "the endpoint answered; served as org/tiny" in said
    assert len(own.post("/v1/embeddings", model="org/tiny", input="Hello")["data"][0]["embedding"]) == tiny_model.HIDDEN
    asked = own.run("muster", "sandbox", "ask", "--name", own.box.name)
    assert f"embedding of {tiny_model.HIDDEN} numbers" in asked.stdout, asked.stdout + asked.stderr
    measured = own.muster("bench", recipe, "--ledger", str(tmp_path / "ledger"))
    assert "req/s" in measured
    assert "FAILED" not in measured

    before = own.status()["generation"]
    own.box.exec("node0", ["pkill", "-KILL", "-f", "^VLLM::EngineCore"])
    own.wait("a new generation", lambda: own.status().get("generation") not in (None, before), RECOVERY)
    own.wait("the endpoint answers the guard", own.ready, RECOVERY)
    assert own.post("/v1/embeddings", model="org/tiny", input="Hello")["data"]
