"""Recipes of one's own with the real vLLM on one host: embeddings, then a chat template and a draft; a kill each."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from muster.on_host.whole_files import text_sha256
from muster.sandbox import tiny_model
from muster.weights import hub
from tests.conftest import Boot
from tests.engine.own import Own

pytestmark = [pytest.mark.sandbox, pytest.mark.engine, pytest.mark.nightly]


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

    own.kill_and_return("node0")
    assert own.post("/v1/embeddings", model="org/tiny", input="Hello")["data"]


def drafted(own: Own) -> float:
    """Return how many tokens the draft model has proposed."""
    with urllib.request.urlopen(own.request("/metrics"), timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:spec_decode_num_draft_tokens_total"))


def answers(own: Own) -> None:
    """The template of the recipe is in use, whatever is asked, and the draft proposes tokens."""
    body = {"messages": [{"role": "user", "content": "a question of any length"}], "max_tokens": 8, "ignore_eos": True}
    answer = own.post("/v1/chat/completions", model="org/tiny", **body)
    assert answer["usage"] == answer["usage"] | {"prompt_tokens": 5, "completion_tokens": 8}
    assert drafted(own) > 0


def test_a_template_and_a_draft_that_a_recipe_brings_are_in_use_and_come_back(own: Own) -> None:
    for model, name in (("org/tiny", "tiny.json"), ("org/draft", "tiny.org--draft.json")):
        directory = f"models/{model.replace('/', '--')}"
        for file, text in tiny_model.files().items():
            own.place(f"{directory}/{file}", text)
        own.place(f"pins/{name}", json.dumps(hub.from_directory(model, own.state / directory).as_data()))
    own.place("fixed.jinja", "{{ '1 2 3' }}")  # five bytes, five tokens
    speculative = {"method": "draft_model", "model": "org/draft", "num_speculative_tokens": 2}
    recipe = own.recipe(
        files={"fixed.jinja": {"sha256": text_sha256("{{ '1 2 3' }}")}},
        flags={"chat-template": "fixed.jinja", "speculative-config": json.dumps(speculative)},
    )
    source = f"weights_source=control:{own.state}/models/org--tiny"
    said = own.muster("deploy", recipe, "-y", "--data", "model=org/tiny", "--data", source)
    assert "the endpoint answered; served as org/tiny" in said
    answers(own)
    line = own.command_line("node0")
    assert "--chat-template /etc/muster/tiny/files/" in line
    assert "/var/lib/muster/weights/org--draft/" in line
    own.kill_and_return("node0")
    answers(own)
