"""The real vLLM in two groups behind an edge: the `openai` package, the prefix cache, and an EngineCore that dies."""

from __future__ import annotations

import json
import random
import runpy
import subprocess
import time
import urllib.request
import venv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from muster.sandbox import tiny_model
from tests.conftest import Boot
from tests.edge.edged import NAME, Edged, Layout, Load
from tests.edge.live import bearer, make_certificate
from tests.engine.conftest import REPOSITORY

pytestmark = [pytest.mark.sandbox, pytest.mark.engine, pytest.mark.nightly]

EDGE, HEADS = "node2", ("node0", "node1")
LAYOUT = Layout({"kimi-a": ("node0",), "kimi-b": ("node1",)}, (EDGE,))
OPENAI = "openai==3.57.0"
MODEL, ENGINE_KEY = "kimi-k2", "engine-secret"
RECOVERY = 1200.0
"""Seconds after which a wait has failed; the other engine and its clients leave little of two cores to a start."""


class RealEdged(Edged):
    """Groups of the real engine, as the sandbox's settings have it, and the edge before them."""

    run_seconds = 1800

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "MUSTER_SANDBOX": self.box.name}

    def start(self, deploy: str = "kimi_k2_instruct", *flags: str, **settings: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MUSTER_SANDBOX", self.box.name)  # the settings are those of one sandbox
            own = runpy.run_path(str(REPOSITORY / "group_data" / "sandbox.py"))
        real = {key: value for key, value in own.items() if not key.startswith("_")}
        for edged in ("client_networks", "monitor_networks"):
            del real[edged]
        usual = {"engine_path": None, "stall_timeout": 120, "canary_idle": 30, "max_model_len": tiny_model.MAX_LENGTH}
        return super().start(deploy, *flags, **{**real, **usual, **settings})

    def bring_up(self, token_seconds: float = 0) -> None:
        make_certificate(self.directory / "edge.pem", (NAME,))
        (self.directory / "engine-key").write_text(f"VLLM_API_KEY={ENGINE_KEY}\n")
        self.inventory = self.layout.whole
        self.done("fleet")

    def chat(self, key: str, messages: list[dict[str, str]]) -> None:
        """Have one short answer to messages."""
        connection = self.open(EDGE)
        body = json.dumps({"model": MODEL, "messages": messages, "max_tokens": 1})
        connection.request("POST", "/v1/chat/completions", body, {**bearer(key), "Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        connection.close()

    def cached(self) -> Counter[str]:
        """Return how many tokens the engines have looked up in their prefix caches, and found there."""
        counts: Counter[str] = Counter()
        for host in HEADS:
            request = urllib.request.Request(f"http://{self.address(host)}:8000/metrics", headers=bearer(ENGINE_KEY))
            with urllib.request.urlopen(request, timeout=60) as answer:
                lines = answer.read().decode().splitlines()
            for what in ("queries", "hits"):
                named = f"vllm:prefix_cache_{what}_total"
                counts[what] += int(sum(float(line.split()[-1]) for line in lines if line.startswith(named)))
        return counts


@pytest.fixture(scope="module")
def edged(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> RealEdged:
    there = RealEdged(sandbox("real-edge", 3), tmp_path_factory.mktemp("edged"), LAYOUT)
    there.bring_up()
    return there


@pytest.fixture(scope="module")
def client(edged: RealEdged) -> str:
    """A key without limits."""
    return edged.new_key("load")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the `openai` package."""
    place = tmp_path_factory.mktemp("openai")
    venv.create(place, with_pip=True)
    subprocess.run([place / "bin" / "pip", "install", "--quiet", OPENAI], check=True, timeout=600)
    return place / "bin" / "python"


def test_the_openai_package_is_served(edged: RealEdged, client: str, python: Path) -> None:
    program = Path(__file__).with_name("openai_client.py")
    words = [python, program, NAME, edged.address(EDGE), edged.directory / "edge.pem.crt", client, MODEL]
    ran = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    print(found)
    assert found["models"] == [MODEL]
    assert found["whole"] == [MODEL, "length", 4]
    assert found["streamed"] == [[6], True]
    assert found["called"] == ["toggle", True]  # of what an untrained model says of it, only that it came
    assert found["wrong key"] == "AuthenticationError 401 invalid_api_key"
    assert found["wrong key to a model"] == "AuthenticationError 401 invalid_api_key"
    assert found["no such model"] == "NotFoundError 404 model_not_found"
    assert found["no such path"] == "NotFoundError 404 unknown_url"
    assert found["what the engine refuses"].startswith("BadRequestError 400")


def converse(there: RealEdged, key: str, seed: int) -> Counter[str]:
    """Have conversations with one system prompt, a turn of any of them at a time; return what the caches counted."""
    draw = random.Random(seed)

    def text(length: int) -> str:
        return "".join(draw.choices("abcdefghijklmnop ", k=length))  # a token each

    before, shared = there.cached(), text(300)
    left = {number: [{"role": "system", "content": shared}] for number in range(8)}
    while left:
        number = draw.choice(sorted(left))
        said = [*left.pop(number), {"role": "user", "content": text(150)}]
        there.chat(key, said)
        if len(said) < 2 * 4:
            left[number] = [*said, {"role": "assistant", "content": text(150)}]
    return there.cached() - before


def test_by_prefix_a_conversation_meets_its_cache(edged: RealEdged, client: str) -> None:
    shares = {}
    for balance in ("prefix", "least"):
        edged.done("edge", edge_balance=balance)
        counts = converse(edged, client, len(shares))
        shares[balance] = counts["hits"] / counts["queries"]
    print(shares)
    assert shares["prefix"] > shares["least"] > 0


def test_a_killed_engine_core_refuses_no_request(edged: RealEdged, client: str) -> None:
    clients = 4
    with Load(edged, client, clients) as load:
        edged.wait("both have answered", lambda: all(edged.taken(host) > 4 for host in HEADS), RECOVERY)
        edged.sh("node0", "pkill -KILL -f '^VLLM::EngineCore'")
        killed = time.monotonic()
        edged.wait("the edge's word", lambda: edged.seen_by(EDGE, "node0")["status"].startswith("DOWN"), RECOVERY)
        done = load.counts["done"]
        edged.wait("answers of the other", lambda: load.counts["done"] > done + 2 * clients, RECOVERY)
        taken = edged.taken("node0")
        edged.wait("requests at the engine that is back", lambda: edged.taken("node0") > taken, RECOVERY)
        print(f"back {time.monotonic() - killed:.0f} s after the KILL")
    print(load.counts, load.others("done"))
    assert load.counts["refused"] == 0, load.others("done")
    assert load.counts["lost"] <= clients // 2, load.others("done")


def test_the_only_group_left_refuses_with_a_time_to_retry(edged: RealEdged, client: str) -> None:
    """One group alone is its model's outage while it restarts: 503, and nobody waits for it."""
    edged.wait("both", lambda: all(edged.ready_at(host) for host in HEADS), RECOVERY)
    for host in HEADS:
        edged.sh(host, "pkill -KILL -f '^VLLM::EngineCore'")
    edged.wait("none is left", lambda: "503" in edged.ask(client)[1], RECOVERY)
    connection = edged.open(EDGE)
    connection.request("POST", "/v1/completions", json.dumps({"model": MODEL, "prompt": "1"}), bearer(client))
    refused = connection.getresponse()
    connection.close()
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    edged.wait("an answer", lambda: edged.ask(client)[0] == "done", RECOVERY)
