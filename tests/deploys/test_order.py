"""The order of operations, from pyinfra itself: hosts that answer as a test wants, and `--json` of what it would do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploys.conftest import REPOSITORY

INVENTORY = """\
import json as _json
from muster.plan import make as _build
from muster.spec import recipe as _recipe, settings as _settings
from muster.spec.host import HostSpec as _HostSpec
from tests import sample_observations as _observed

_names = ["@fake/h%d" % _i for _i in range({count})]
_specs = [_HostSpec(_n, "198.51.100.%d" % (_i + 1), "eth1", {gpu!r}, 8) for _i, _n in enumerate(_names)]
_plan = _build.build_plan(_recipe.load("kimi-k2-instruct"), _specs, _settings.Settings(supervisor="systemd"))
_seen = _observed.{state}(_plan)
{change}
_answers = _observed.answers(_plan, _seen)
hosts = [
    (
        _spec.name,
        {{
            "gpu": _spec.gpu,
            "gpus": _spec.gpus,
            "supervisor": "systemd",
            "allow_unpinned_code": True,
            "fabric_address": _spec.address,
            "fabric_interface": _spec.interface,
            "fake_delay": 0,
            "fake_delay_jitter": 0,
            "fake_responses": {{"import json, sys": _json.dumps(_answers[_spec.name])}},
        }},
    )
    for _spec in _specs
]
"""

LOCK = [
    "Engine | what vLLM 0.33.0 was resolved to before is known",
    "Engine | vLLM 0.33.0 is resolved to files with hashes",
    "Engine | every package of vLLM 0.33.0 is here, from one download",
]
BEFORE = [
    "Base | user, directories and limits are in effect",
    "Engine | vLLM 0.33.0 is installed",
    "Engine | the installed vLLM takes the planned command line",
    "Files | units, configuration and secrets are staged",
    "every host is through everything that can be done while the old group runs",
    "Bring up | no rank of an older plan runs",
    "every host is through the stop of the old group",
    "Files | units and configuration are in place",
    "every host is through files and units",
]
AFTER = [
    "every host is through bring-up",
    "Verify | every rank answers, and runs what was planned",
    "every host is through the verification",
    "Keep | the verified plan is kept",
    "Prune | of the engine, two releases are kept",
    "Summary | kimi-k2-instruct serves",
]
TAKEN = "Change | nobody else changes the group"
RECORDED = {
    "every host is through everything that can be done while the old group runs": "stopping",
    "every host is through the stop of the old group": "committing",
    "every host is through files and units": "committed",
    "every host is through bring-up": "started",
}
"""Gate -> the phase that every host records behind it."""
FINISHED = "Change | the change is finished"
DP = ["Bring up | head up", "Bring up | headless ranks up"]
RAY = ["Bring up | Ray head up", "Bring up | Ray workers up", "Bring up | vLLM up"]


def pyinfra(tmp_path: Path, *flags: str, count: int, gpu: str, state: str, change: str = "") -> Any:
    inventory = tmp_path / "inventory.py"
    inventory.write_text(INVENTORY.format(count=count, gpu=gpu, state=state, change=change))
    command = [Path(sys.executable).parent / "pyinfra", "--json", *flags, inventory, "deploys/kimi_k2_instruct.py"]
    env = {"PATH": "/usr/bin:/bin", "XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
    ran = subprocess.run([str(word) for word in command], cwd=REPOSITORY, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize(("gpu", "layers"), [("H200", DP), ("H800", RAY)], ids=["dp", "ray"])
@pytest.mark.parametrize("count", [2, 5])
def test_every_operation_comes_on_every_host_in_this_order(
    tmp_path: Path, gpu: str, layers: list[str], count: int
) -> None:
    told = pyinfra(tmp_path, "--debug-operations", count=count, gpu=gpu, state="fresh")
    order = [TAKEN]
    for name in BEFORE[:1] + LOCK + BEFORE[1:] + layers + AFTER:
        order.append(name)
        if name in RECORDED:
            order.append(f"Change | every host has recorded the change as {RECORDED[name]}")
    order.insert(order.index(AFTER[4]), FINISHED)
    assert [step["names"] for step in told["op_order"]] == [[name] for name in order]
    hosts = [f"@fake/h{number}" for number in range(count)]
    assert all(step["hosts"] == hosts for step in told["op_order"])


def test_fresh_hosts_would_change_everywhere_and_each_layer_on_its_own_hosts(tmp_path: Path) -> None:
    told = pyinfra(tmp_path, "--dry", count=3, gpu="H800", state="fresh")
    changes = {step["name"]: step["hosts_with_change"] for step in told["plan"]}
    hosts = ["@fake/h0", "@fake/h1", "@fake/h2"]
    assert changes[BEFORE[0]] == changes[BEFORE[1]] == changes[BEFORE[3]] == changes[BEFORE[7]] == hosts
    assert [changes[name] for name in LOCK] == [[], ["@fake/h0"], hosts]
    assert changes[BEFORE[2]] == ["@fake/h0"]  # Ray workers run no command line of vLLM's
    assert changes[BEFORE[5]] == []  # nothing runs yet
    # The head asks how many GPUs have joined while the workers start.
    assert [changes[name] for name in RAY] == [["@fake/h0"], hosts, ["@fake/h0"]]
    assert {name: changes[name] for name in AFTER if changes[name]} == dict.fromkeys(AFTER[3:5], hosts)


@pytest.mark.parametrize("gpu", ["H200", "H800"])
def test_hosts_as_planned_would_change_nothing(tmp_path: Path, gpu: str) -> None:
    told = pyinfra(tmp_path, "--dry", count=2, gpu=gpu, state="as_planned")
    assert all(step["hosts_with_change"] == [] for step in told["plan"])


def test_one_differing_file_on_one_host_stops_and_starts_every_host(tmp_path: Path) -> None:
    change = '_seen["@fake/h1"]["files"]["/etc/muster/kimi-k2-instruct/vllm.env"]["sha256"] = "0"'
    told = pyinfra(tmp_path, "--dry", count=2, gpu="H200", state="as_planned", change=change)
    changes = {step["name"]: step["hosts_with_change"] for step in told["plan"]}
    both = ["@fake/h0", "@fake/h1"]
    assert changes[BEFORE[3]] == changes[BEFORE[7]] == ["@fake/h1"]
    assert changes[BEFORE[5]] == both
    assert changes[DP[1]] == both


def test_more_hosts_than_pyinfra_runs_at_once(tmp_path: Path) -> None:
    told = pyinfra(tmp_path, "--dry", "--parallel", "1", count=3, gpu="H200", state="as_planned")
    assert all(step["hosts_with_change"] == [] for step in told["plan"])
