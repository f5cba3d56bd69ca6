"""Fixtures for all tests: real hosts by name, booted on first use and gone at the end."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from gevent import monkey

from muster.errors import Refusal
from muster.sandbox import Sandbox, requirements, state_file
from tests import required

Boot = Callable[..., Sandbox]

# Importing pyinfra's command patches the standard library for gevent. Half-way through a test process that leaves
# threads and locks of two kinds, and tests with threads wait for ever.
monkey.patch_all = lambda **_: False

# A shell script starts what it runs beside itself with SIGINT ignored, and so do all of its children: Ctrl-C sent by a
# test would do nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# `script/test nightly` takes the other one.
hypothesis.settings.register_profile("quick", max_examples=40, deadline=None)
hypothesis.settings.register_profile("nightly", max_examples=1000, deadline=None)
hypothesis.settings.load_profile("quick")


def _sweep() -> None:
    """Take down what a killed test run left: its sandboxes carry its process id."""
    for name in list(state_file.every(state_file.root_directory())):
        owner = re.fullmatch(r"t(\d+)-.*", name)
        if owner and not Path("/proc", owner.group(1)).exists():
            Sandbox.named(name).down()


def require_sandbox() -> None:
    """Skip, or fail when MUSTER_REQUIRE_SANDBOX=1, where this user or machine cannot boot hosts or mount disks."""
    try:
        requirements.check()
    except Refusal as refusal:
        required.lacking(str(refusal))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Boot]:
    """Return a function that gives the sandbox of a name: `sandbox("pair", hosts=2, gpu="H200", gpus=8)`.

    Tests that ask for one name share its hosts.
    """
    made: dict[str, Sandbox] = {}

    def boot(name: str, hosts: int = 2, *, gpu: str = "H200", gpus: int = 1) -> Sandbox:
        require_sandbox()
        if not made:
            _sweep()
        full = f"t{os.getpid()}-{name}"
        box = made.get(name) or Sandbox.named(full)
        made[name] = box  # before it is up: a half-booted one must go as well
        return Sandbox.up(full, hosts, gpu=gpu, gpus=gpus)

    yield boot
    for box in made.values():
        box.down()
