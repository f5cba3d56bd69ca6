"""vLLM's loaders measured on a host by its real engine, as a deploy does it: root's program, the engine as nobody."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from muster.guard import loader_choice
from muster.hosts import programs
from muster.on_host import kept_loaders, measure_loaders
from muster.plan.load_ranks import LoadRanks
from tests.attacks.host_programs import ask, shell
from tests.engine.conftest import Real
from tests.on_host.transfer_runs import COMMIT, MIB, listing_of

pytestmark = [pytest.mark.sandbox, pytest.mark.engine, pytest.mark.nightly]

ORIGIN, DIRECTORY = "/srv/origin", f"/srv/loaders/org--model/{COMMIT}"
EXPERTS, SIDE = 4, 2048
MATRIX = 2 * SIDE * SIDE
FILES, MATRICES = 4, 12
LEFT = (
    "systemctl list-units --all --plain --no-legend 'muster-probe-*'; ls -A /tmp /dev/shm;"
    " pgrep -fa 'python -I [-]' || true"
)
"""What a measurement could leave: a unit, files, processes."""


def write(path: Path, number: int) -> None:
    """Write a layer as safetensors: half of its matrices are experts'; a vector and an empty tensor besides."""
    shapes = {f"model.layers.{number}.norm.weight": (SIDE,), f"model.layers.{number}.none.weight": (0, 5)}
    shapes |= {f"model.layers.{number}.part{each}.weight": (SIDE, SIDE) for each in range(MATRICES // 2)}
    experts = [f"model.layers.{number}.mlp.experts.{each % EXPERTS}.w{each}.weight" for each in range(MATRICES // 2)]
    shapes |= dict.fromkeys(experts, (SIDE, SIDE))
    at, header = 0, {}
    for name, shape in shapes.items():
        count = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + count]}
        at += count
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while at > 0:
            file.write(os.urandom(min(at, MIB)))
            at -= MIB


def test_the_engine_measures_its_loaders_and_leaves_nothing(real: Real) -> None:
    box, host = real.box, real.box.hosts[0].name
    origin = box.tree(host) / ORIGIN[1:]
    origin.mkdir()
    for number in range(FILES):
        write(origin / f"model-{number}.safetensors", number)
    listing = listing_of(origin)
    staged = {"listing": listing.as_data(), "me": host, "seed": host, "address": "127.0.0.1", "port": 29001}
    source = {"kind": "directory", "path": ORIGIN, "from": "from a directory"}
    told = ask(box, host, "transfer_stage", directory=DIRECTORY, peers={}, source=source, **staged)
    assert "error" not in told, told
    engine = shell(box, host, "ls -d /opt/muster/engines/*/bin/vllm").split()[0].removesuffix("/bin/vllm")
    names = list(measure_loaders.MODULES)
    before = shell(box, host, LEFT)
    layouts = {
        "tensors sliced, loaded together": LoadRanks(2, 2, 2),
        "alone": LoadRanks(2, 1, 1),
        "experts divided and skipped, loaded together": LoadRanks(2, 1, 2, EXPERTS, 2, filtered=True),
    }
    for layout, ranks in layouts.items():
        asked = {
            "directory": DIRECTORY,
            "manifest": listing.digest,
            "engines": [["none", "/opt/none"], ["own", engine]],
            "program": programs.source("measure_loaders"),
            "load": ranks.request(node_rank=0, seconds=120),
            "key": ranks.key,
            "names": names,
            "env": {"NCCL_DEBUG": "INFO"},
            "gpus": [],
            "sample": MATRIX * MATRICES,
            "etc": "/srv/none",  # the hosts' own group serves meanwhile, without a GPU
        }
        text = programs.bundle({"loader_rates": asked})
        done = box.exec(host, ["/bin/sh", "-c", programs.COMMAND], stdin=text, timeout=900)
        answer = programs.answers(done.stdout.splitlines())["loader_rates"]
        assert answer.get("why") == "", (layout, answer)
        found = answer["loaders"]
        assert (found["engine"], found["ranks"]) == ("own", ranks.key)
        assert set(found["loaders"]) == {loader_choice.AUTO, loader_choice.AUTO_CACHED}, (layout, answer)
        assert all(10**6 < each["rate"] < 10**12 and each["peak"] == 0 for each in found["loaders"].values())
        assert set(answer["failed"]) == set(names), (layout, answer)
        assert all(why.endswith("is not installed") for why in answer["failed"].values()), answer
        record = kept_loaders.path(DIRECTORY)
        assert shell(box, host, f"stat -c '%a %U' {record}") == "644 root\n"
        assert json.loads(shell(box, host, f"cat {record}"))["loaders"] == found["loaders"]
        assert shell(box, host, LEFT) == before
    shell(box, host, f"rm -r {ORIGIN} /srv/loaders")  # the hosts serve other tests
