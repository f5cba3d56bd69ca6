"""A change that only the engine can refuse, with requests going on: the group goes back, no client loses a request."""

from __future__ import annotations

import json
import re
import threading

import pytest

from tests.engine.conftest import RANKS, Real

pytestmark = [pytest.mark.sandbox, pytest.mark.engine, pytest.mark.nightly]

# The parser takes it, and the model's directory holds no weights to load.
FAILS = ["--enforce-eager", "--load-format", "safetensors", "--dtype", "bfloat16"]


def test_a_change_that_fails_at_start_goes_back_and_loses_no_request(real: Real) -> None:
    before, over, ends = real.status()["digest"], threading.Event(), list[str]()

    def ask(rank: int) -> None:
        while not over.is_set():
            if real.ready():
                ends.append(real.complete(rank))
            over.wait(0.1)

    clients = [threading.Thread(target=ask, args=(rank,)) for rank in RANKS]
    for client in clients:
        client.start()
    try:
        # Two failed starts and one that serves, of minutes each where the machine has other work.
        ran = real.deploy("--data", f"extra_args={json.dumps(FAILS)}", timeout=2400)
    finally:
        over.set()
        for client in clients:
            client.join(180)
    text = ran.stdout + ran.stderr
    assert ran.returncode == 1, text
    said = re.search(rf"plan {before} serves again after (\d+) s without service", text)
    assert said, text
    print(f"without service for {said.group(1)} s; {len(ends)} requests; {text.strip().splitlines()[-1]}")
    assert len(ends) > 10
    assert "" not in ends  # every request was answered, to its length or to the model's own end
    assert (real.status()["digest"], real.ready()) == (before, True)
