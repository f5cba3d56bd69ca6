"""While weights and an engine are staged, the group that runs goes on: the same processes, every request answered."""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import kept_rate, read_rate
from muster.spec import bundles, recipe
from muster.weights import gather, hub
from tests.deploys.conftest import GROUP, HOSTS, REPOSITORY, UNIT, Testbed
from tests.deploys.test_install import installs

pytestmark = pytest.mark.sandbox
ENGINE = """\
from muster.deploys.base_system import base
from muster.deploys.check import check
from muster.deploys.install_engine import engine

_run, _ = check("kimi-k2-instruct")
base(_run)
engine(_run)
"""


def processes(testbed: Testbed) -> dict[str, str]:
    """Return the process ids of the unit on every host."""
    groups = f"/sys/fs/cgroup/systemd/system.slice/{UNIT} /sys/fs/cgroup/system.slice/{UNIT}"
    return {
        name: testbed.sh(name, f"for g in {groups}; do cat $g/cgroup.procs 2>/dev/null; done; true") for name in HOSTS
    }


@contextmanager
def asked_all_along(testbed: Testbed) -> Iterator[list[bool]]:
    """Ask the group again and again; the list grows by whether each request was answered."""
    told: list[bool] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            told.append(testbed.answers())
            over.wait(0.2)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()


def bundle_of_weights(place: Path) -> None:
    """Write a directory with files of a model, and their pin."""
    chance, weights = random.Random(3), place / "weights"
    weights.mkdir(parents=True)
    for number in range(20):
        (weights / f"model-{number:05}.safetensors").write_bytes(chance.randbytes(300_000))
    (place / "pin.json").write_text(json.dumps(hub.from_directory(recipe.load(GROUP).model, weights).as_data()))


def test_a_running_group_does_not_notice(serving: Testbed, tmp_path: Path) -> None:
    lives, before = serving.lives(), processes(serving)
    assert all(before.values())
    bundle_of_weights(tmp_path / "bundle")
    (tmp_path / "engine.py").write_text(ENGINE)
    given = installs(serving)
    with asked_all_along(serving) as told:
        staged = serving.run("stage_weights", "-y", bundle=str(tmp_path / "bundle"), _recipe=GROUP)
        installed = serving.run(os.path.relpath(tmp_path / "engine", REPOSITORY / "deploys"), "-y", **given)
    assert staged.status == 0, staged.text
    assert installed.status == 0, installed.text
    assert len(told) > 5
    assert all(told)
    assert serving.lives() == lives
    assert processes(serving) == before
    for name in HOSTS:
        assert serving.sh(name, "ls /var/lib/muster/weights/*/current/*.safetensors | wc -l") == "20"
        assert serving.sh(name, "ls /opt/muster/engines/vllm-0.33.0-*/.muster-complete")


def test_a_draft_that_is_pinned_comes_with_the_model_from_beside_it(testbed: Testbed) -> None:
    pinned = testbed.directory / "pins"
    pinned.mkdir()
    main = recipe.load(GROUP).model
    for model, name in ((main, f"{GROUP}.json"), ("org/draft", f"{GROUP}.org--draft.json")):
        place = testbed.directory / "models" / model.replace("/", "--")
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps({"of": model}))
        (pinned / name).write_text(json.dumps(hub.from_directory(model, place).as_data()))
    source = testbed.directory / "models" / main.replace("/", "--")
    staged = testbed.run("stage_weights", "-y", weights_source=f"control:{source}", _recipe=GROUP)
    assert staged.status == 0, staged.text
    for name in HOSTS:
        for model in (main, "org/draft"):
            path = f"/var/lib/muster/weights/{model.replace('/', '--')}/current/config.json"
            assert json.loads(testbed.sh(name, f"cat {path}")) == {"of": model}


def test_a_draft_out_of_a_bundle_is_staged_where_the_plan_names_it(testbed: Testbed) -> None:
    out, main = testbed.directory / "bundle", recipe.load(GROUP).model
    places = {main: (out / bundles.WEIGHTS, out / bundles.PIN)}
    places["org/bundled"] = (bundles.draft(out, "org/bundled"), bundles.draft_pin(out, "org/bundled"))
    for model, (weights, pin) in places.items():
        weights.mkdir(parents=True)
        (weights / "config.json").write_text(json.dumps({"bundled": model}))
        pin.write_text(json.dumps(hub.from_directory(model, weights).as_data()))
    (out / bundles.ENGINE / "wheels").mkdir(parents=True)
    (out / bundles.ENGINE / "wheels" / "unused").write_text("the hosts have the stand-in")
    gather.seal(out, GROUP)
    words = {"method": "draft_model", "model": "org/bundled", "num_speculative_tokens": 2}
    given: dict[str, Any] = {"bundle": str(out), "weights_source": "hub"}  # the bundle has them: no hub is asked
    given["extra_args"] = ["--speculative-config", json.dumps(words)]
    staged = testbed.run("stage_weights", "-y", _recipe=GROUP, **given)
    assert staged.status == 0, staged.text
    planned = testbed.muster("plan")
    for name in HOSTS:
        (path,) = testbed.sh(name, "readlink -f /var/lib/muster/weights/org--bundled/current").split()
        assert json.loads(testbed.sh(name, f"cat {path}/config.json")) == {"bundled": "org/bundled"}
        assert path in planned.stdout, planned.stdout + planned.stderr


def test_how_fast_each_disk_is_read_is_measured_once_and_the_load_said(testbed: Testbed) -> None:
    pinned, main = testbed.directory / "pins", recipe.load(GROUP).model
    place = testbed.directory / "models" / main.replace("/", "--")
    for directory in (pinned, place):
        directory.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        with (place / f"model-{number:05}-of-00002.safetensors").open("wb") as file:
            file.truncate(read_rate.LEAST // 2 + 5)
    (pinned / f"{GROUP}.json").write_text(json.dumps(hub.from_directory(main, place).as_data()))
    given = {"weights_source": f"control:{place}", "_recipe": GROUP}
    first = testbed.run("stage_weights", "-y", **given)
    assert first.status == 0, first.text
    said = (
        r"\[(node\d)\] +reads weights at ([\d.e+]+) GB/s; a cold load: disk .* GB/s, 0.268 GB for 1 GPU: at least \d+ s"
    )
    rates = dict(re.findall(said, first.text))
    assert sorted(rates) == [*HOSTS], first.text
    assert all(0.001 < float(rate) < 1000 for rate in rates.values())
    for name in HOSTS:
        kept = json.loads(testbed.sh(name, f"cat /var/lib/muster/weights/*/*{kept_rate.SUFFIX}"))
        assert kept["all"] == pytest.approx(float(rates[name]) * 1e9, rel=0.06)  # printed with two digits
    second = testbed.run("stage_weights", "--json", "-y", **given)
    assert (second.status, second.results["totals"]["success"]) == (0, 0), second.text
    assert "is the slowest of 2; measured " in second.text
    expected = (
        r"a cold load: disk .* GB for 1 GPU: at least \d+ s \(node\d is the slowest of 2; measured \d+ (s|min) ago\)"
    )
    assert re.search(expected, testbed.command_of("weights", "status", "inventory.py", GROUP).stdout)
    looked = testbed.muster("preflight", "--no-pairs", "--format", "json")
    assert re.search(expected, " ".join(json.loads(looked.stdout)["notes"])), looked.stdout + looked.stderr
