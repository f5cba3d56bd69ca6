"""Layouts over two hosts with the real vLLM: every host asked, a kill on the host that is not the head."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Boot
from tests.engine.own import Own

pytestmark = [pytest.mark.sandbox, pytest.mark.engine, pytest.mark.nightly]

LOAD = {"dataset-name": "random", "random-input-len": 32, "random-output-len": 4, "num-prompts": 4}


@dataclass(frozen=True)
class Case:
    """One layout: GPUs of a host, strategy, name in the plan, the hosts that answer, words of node1's command line."""

    gpus: int
    strategy: dict[str, Any]
    label: str
    answers: tuple[str, ...]
    words: tuple[str, ...]


CASES = {
    "tp-hosts": Case(
        1,
        {"about": "One engine.", "min_hosts": 2, "sizes": {"tp": "all"}, "executor": "mp"},
        "TP2",
        ("node0",),
        ("--headless", "--nnodes 2", "--node-rank 1", "--tensor-parallel-size 2"),
    ),
    "pairs": Case(
        2,
        {"about": "An engine on each host.", "min_hosts": 2, "sizes": {"tp": 2, "dp": "all"}},
        "TP2+DP2",
        ("node0",),
        ("--headless", "--tensor-parallel-size 2", "--data-parallel-size 2"),
    ),
    "hybrid": Case(
        2,
        {"about": "All answer.", "min_hosts": 2, "sizes": {"tp": 1, "dp": "all"}, "load_balancing": "hybrid"},
        "DP4",
        ("node0", "node1"),
        ("--data-parallel-hybrid-lb", "--data-parallel-start-rank 2"),
    ),
}


@pytest.fixture
def own(sandbox: Boot, tmp_path: Path, name: str) -> Own:
    gpus = CASES[name].gpus
    return Own(sandbox(f"layouts{gpus}", 2, gpus=gpus), tmp_path)


def completes(own: Own, host: str) -> str:
    """Return why a completion that a host was asked for ended."""
    body = {"model": "org/tiny", "prompt": "Hello there", "max_tokens": 4, "ignore_eos": True}
    with urllib.request.urlopen(own.request("/v1/completions", body, host=host), timeout=300) as answer:
        return str(json.load(answer)["choices"][0]["finish_reason"])


@pytest.mark.parametrize("name", CASES)
def test_a_layout_over_two_hosts_serves_and_comes_back(own: Own, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    flags = {"enforce-eager": True}  # hosts have no compiler
    env = {"TORCHDYNAMO_DISABLE": "1"}  # with TP the embedding is compiled even so (vocab_parallel_embedding.py)
    own_words: dict[str, Any] = {"flags": flags, "env": env, "bench": {"tiny": LOAD}}
    recipe = own.recipe(strategies={name: case.strategy}, defaults={"any": name}, **own_words)
    said = own.muster("deploy", recipe, "-y", strategy=name)
    assert case.label in said
    assert "answered" in said
    for host in case.answers:
        assert completes(own, host) == "length"
    line = own.command_line("node1")
    for words in case.words:
        assert words in line
    assert "running" in own.muster("status", recipe, strategy=name)
    measured_or_refused(own, recipe, name, tmp_path / "ledger")

    own.kill_and_return("node1")
    for host in case.answers:
        assert completes(own, host) == "length"


def measured_or_refused(own: Own, recipe: str, name: str, ledger: Path) -> None:
    """`muster bench` measures what one endpoint answers, and refuses where every host does."""
    words = ("muster", "bench", str(own.state / "sandbox.py"), recipe, "--data", f"strategy={name}")
    done = own.run(*words, "--ledger", str(ledger))
    said = done.stdout + done.stderr
    if len(CASES[name].answers) > 1:
        assert done.returncode != 0
        assert "every host answers for its own DP ranks" in said
    else:
        assert done.returncode == 0, said
        assert "req/s" in said
        assert "FAILED" not in said
