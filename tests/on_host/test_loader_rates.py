"""The loaders measured on a host: on which files, when not, and what is taken of the answer of the engine's Python.

The engine's part has a test with the real vLLM: tests/engine/test_measure_loaders.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.guard import config, loader_record
from muster.on_host import ask_guard, kept_loaders, loader_rates, measure_loaders, mutex, run_command, run_unprivileged
from muster.on_host import weights_on_disk as weights
from muster.plan.loaders import NAMES
from tests.on_host.test_read_rate import revision
from tests.on_host.transfer_runs import MIB
from tests.sample_plans import plan

ALL = ["auto", *NAMES]
GOOD = {"rate": 10**9, "peak": 5}


# the sample


@given(
    st.dictionaries(
        st.integers(0, 60).map(lambda number: f"/m/{number}.safetensors") | st.sampled_from(["/m/config.json", "/m/a"]),
        st.integers(0, 5 << 30),
        max_size=40,
    ),
    st.integers(1, 20 << 30),
)
def test_every_loader_reads_large_files_of_about_one_size(files: dict[str, int], least: int) -> None:
    chosen = loader_rates.sample(files, ALL, least)
    sizes = {path: size for path, size in files.items() if path.endswith(".safetensors")}
    if not sizes:
        assert chosen == {}
        return
    assert list(chosen) == ALL
    largest, alike = max(sizes.values()), [path for path, size in sizes.items() if 2 * size >= max(sizes.values())]
    counts = {len(paths) for paths in chosen.values()}
    assert len(counts) == 1
    for paths in chosen.values():
        assert paths
        assert len(set(paths)) == len(paths)
        assert all(2 * sizes[path] >= largest for path in paths)
        assert 2 * sum(sizes[path] for path in paths) >= min(least, len(alike) * largest)
    count = counts.pop()
    assert (count - 1) * largest < least  # no more than it takes
    different = {tuple(paths) for paths in chosen.values()}
    assert len(different) == min(len(ALL), len(alike) // count)
    flat = [path for paths in different for path in paths]
    assert len(set(flat)) == len(flat)  # what one loader has read is no other's


def test_a_sample_of_shards() -> None:
    files = {f"/m/{number:02}.safetensors": 4 << 30 for number in range(9)} | {"/m/99.safetensors": 1 << 20}
    found = loader_rates.sample(files, ["auto", "a", "b", "c", "d"], 8 << 30)
    names = {name: [path[3:5] for path in paths] for name, paths in found.items()}
    assert names == {"auto": ["00", "01"], "a": ["02", "03"], "b": ["04", "05"], "c": ["06", "07"], "d": ["00", "01"]}


# a run


def engine_of(place: Path) -> list[str]:
    """Make what looks like an installed release, with the Python of the tests."""
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "vllm").touch()
    (place / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (place / "bin" / "python").chmod(0o755)
    return ["own", str(place)]


def answering(answer: Any) -> str:
    """Return a program in the place of `measure_loaders`: it answers this whatever it is asked."""
    return f"import json\ndef main(request):\n    return json.loads({json.dumps(answer)!r})\n"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A request for a staged revision and an installed engine, on a host without systemd and without GPUs."""
    monkeypatch.setattr(run_unprivileged, "privileged", lambda: False)
    monkeypatch.setattr(run_command, "run", lambda argv, seconds=20: (127, f"{argv[0]} is not installed"))
    staged = revision(tmp_path, 3 * MIB, 3 * MIB, 2 * MIB, 100)
    return {
        "directory": staged["directory"],
        "manifest": staged["manifest"],
        "engines": [["other", str(tmp_path / "none")], engine_of(tmp_path / "engine")],
        "program": answering({"loaders": dict.fromkeys(("auto", "auto-cached", *NAMES), GOOD)}),
        "load": {"ranks": 2, "seconds": 20},
        "key": "8-1-8",
        "names": list(NAMES),
        "env": {},
        "gpus": [],
        "sample": 3 * MIB,
        "etc": str(tmp_path / "etc"),
    }


def test_what_was_measured_is_kept_and_told(asked: dict[str, Any]) -> None:
    answer = loader_rates.main(asked)
    assert (answer["why"], answer["failed"]) == ("", {})
    assert answer["loaders"] == {**(kept_loaders.of(asked["directory"]) or {}), "age": answer["loaders"]["age"]}
    assert set(answer["loaders"]["loaders"]) == {"auto", "auto-cached", *NAMES}
    assert (answer["loaders"]["engine"], answer["loaders"]["ranks"]) == ("own", "8-1-8")
    probed = weights.probe({"directory": asked["directory"], "manifest": asked["manifest"]})
    assert probed["complete"]
    assert probed["loaders"]["loaders"] == answer["loaders"]["loaders"]


ECHO = """
import json, os
def main(request):
    open(TELL, "w").write(json.dumps({"request": request, "env": dict(os.environ)}))
    return {"error": "told"}
"""


def test_what_the_engines_python_is_given(asked: dict[str, Any], tmp_path: Path) -> None:
    tell = tmp_path / "told"
    asked |= {"program": f"TELL = {str(tell)!r}\n{ECHO}", "gpus": [2, 3], "env": {"NCCL_IB_DISABLE": "1"}}
    assert loader_rates.main(asked)["why"] == "told"
    told = json.loads(tell.read_text())
    assert {**told["request"], "files": 0} == {"ranks": 2, "seconds": 20, "files": 0}
    files = {name: [Path(path).name for path in paths] for name, paths in told["request"]["files"].items()}
    three = [f"model-{number}.safetensors" for number in range(3)]
    assert files == {name: [three[turn % 3]] for turn, name in enumerate(ALL)}  # the small one is none of them
    assert told["env"]["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert told["env"]["NCCL_IB_DISABLE"] == "1"
    assert told["env"]["NCCL_SOCKET_IFNAME"] == told["env"]["GLOO_SOCKET_IFNAME"] == "lo"


def test_a_loader_that_fails_is_left_out_and_named(asked: dict[str, Any]) -> None:
    answers = {"auto": GOOD, "instanttensor": {"error": "is not installed"}, "fastsafetensors": {}}
    answer = loader_rates.main({**asked, "program": answering({"loaders": answers})})
    assert answer["why"] == ""
    assert answer["loaders"]["loaders"] == {"auto": GOOD}
    assert answer["failed"] == {"instanttensor": "is not installed", "fastsafetensors": "no figures"}


@pytest.mark.parametrize(
    "loaders",
    [
        {"\x1b]52;c;AAAA\x07": GOOD},
        {"../x": GOOD, "Auto": GOOD, "another": GOOD},
        {f"loader{number}": GOOD for number in range(1000)},
        {"instanttensor": {**GOOD, "more": "x" * 10_000}},
        {"instanttensor": {"rate": "9", "peak": 0}},
        {"instanttensor": {"rate": 10**30, "peak": 0}},
        {"instanttensor": {"rate": 5, "peak": -1}},
        {"instanttensor": [GOOD]},
    ],
    ids=["sequence", "names", "many", "more", "text", "huge", "negative", "list"],
)
def test_nothing_odd_of_an_answer_is_kept(asked: dict[str, Any], loaders: Mapping[str, Any]) -> None:
    answer = loader_rates.main({**asked, "program": answering({"loaders": {**loaders, "auto": GOOD}})})
    assert answer["why"] == ""
    assert set(answer["loaders"]["loaders"]) <= {"auto", "instanttensor"}
    record = json.loads(Path(kept_loaders.path(asked["directory"])).read_text())
    assert record["loaders"] == answer["loaders"]["loaders"]
    assert all(each == GOOD for each in record["loaders"].values())


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (answering({"error": "vLLM cannot be imported: no torch"}), "vLLM cannot be imported: no torch"),
        (answering([1]), "[1]"),
        (answering({"loaders": []}), "None"),
        (answering({"loaders": {}}), "no loader loaded"),
        (answering({"loaders": {"auto": {"error": "it was not done in time"}}}), "no loader loaded"),
        ("def main(request):\n    raise ValueError('broken')\n", "ValueError: broken"),
        ("raise SystemExit(3)", "gave no answer and ended with 3"),
        ("print('{\"torn')\nraise SystemExit(0)", "gave no answer and ended with 0"),
        ("print('{\"a\":' + '[' * 100_000)\nraise SystemExit(0)", "gave no answer and ended with 0"),
        ("def main(request):\n    return 1\nprint('x' * (9 << 20))", "gave no answer"),
    ],
)
def test_no_answer_is_no_error(asked: dict[str, Any], program: str, why: str) -> None:
    answer = loader_rates.main({**asked, "program": program})
    assert answer["loaders"] is None
    assert why in answer["why"] or (why == "[1]" and "gave no answer" in answer["why"])
    assert len(answer["why"]) < 10_000
    assert not Path(kept_loaders.path(asked["directory"])).exists()


def test_a_measurement_that_fails_leaves_the_one_before(asked: dict[str, Any]) -> None:
    loader_rates.main(asked)
    kept = Path(kept_loaders.path(asked["directory"])).read_text()
    assert loader_rates.main({**asked, "program": answering({"loaders": {}})})["loaders"] is None
    assert Path(kept_loaders.path(asked["directory"])).read_text() == kept


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"engines": []}, "no engine is installed here yet"),
        ({"engines": [["other", "/no/such"]]}, "no engine is installed here yet"),
        ({"manifest": "0" * 64}, "is not complete"),
        ({"directory": "/no/such/revision"}, ""),
    ],
)
def test_what_is_not_there_is_no_error(asked: dict[str, Any], change: dict[str, Any], why: str) -> None:
    answer = loader_rates.main({**asked, **change})
    assert answer["loaders"] is None
    assert answer["why"]
    assert why in answer["why"]


STOPPED = "; muster stage measures them while the group is stopped"


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (0, "", ""),
        (run_command.MISSING, "nvidia-smi: No such file or directory", ""),
        (9, "NVIDIA-SMI has failed\n because", "nvidia-smi failed: NVIDIA-SMI has failed because"),
        (0, "4711\n", f"1 process computes on its GPUs{STOPPED}"),
        (0, "4711\n4712\n", f"2 processes compute on its GPUs{STOPPED}"),
    ],
)
def test_gpus_that_are_at_work_are_left_alone(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, status: int, text: str, why: str
) -> None:
    monkeypatch.setattr(run_command, "run", lambda argv, seconds=20: (status, text))
    answer = loader_rates.main(asked)
    assert answer["why"] == why
    assert (answer["loaders"] is None) == bool(why)


HELD = {"child": "none", "blocked": "", "head_phase": "held", "head_reason": "", "failure": None, "held": False}
"""What the guard of a member, and of a head, says of itself in a group that an operator has stopped."""


@pytest.mark.parametrize(
    ("state", "answer", "measures"),
    [
        ("active", {"member": {**HELD, "head_phase": "run", "child": "running"}}, False),
        ("active", {"member": {**HELD, "head_phase": "gather"}}, False),
        ("active", {"member": {**HELD, "child": "running"}}, False),
        ("activating", {"error": "no guard answers"}, False),
        ("active", ["odd"], False),
        ("active", {"member": HELD}, True),
        ("inactive", {"error": "the unit is stopped"}, True),
        ("failed", {"error": "the unit is stopped"}, True),
    ],
)
def test_a_group_that_may_start_at_any_time_is_left_alone(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str, answer: Any, measures: bool
) -> None:
    (tmp_path / "etc" / "kimi").mkdir(parents=True)
    (tmp_path / "etc" / "kimi" / "guard.json").touch()
    monkeypatch.setattr(ask_guard, "main", lambda request: {"unit": {"active": state}, "answer": answer})
    found = loader_rates.main(asked)
    said = "" if measures else "kimi runs, or starts anew; muster stage measures them while it is stopped"
    assert (found["why"], found["loaders"] is not None) == (said, measures)


def test_who_writes_there_is_not_measured(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutex, "_EVERY", 0.0)
    held = mutex.held
    monkeypatch.setattr(mutex, "held", lambda path, what, minutes: held(path, what, 0.0))
    with held(asked["directory"] + ".lock", "stages", 1):
        answer = loader_rates.main(asked)
    assert "another session writes here" in answer["why"]


def test_the_guard_reads_what_was_kept(asked: dict[str, Any]) -> None:
    made = plan("kimi-k2-instruct", 2, "H200", model="/srv/m", offline=True)
    measured = {"auto": {"rate": 10**9, "peak": 0}, "auto-cached": {"rate": 10**10, "peak": 0}}
    measured |= {"instanttensor": {"rate": 10**10, "peak": 1 << 30}, "runai_streamer": {"error": "none"}}
    assert made.loaders is not None
    asked |= {
        "key": made.loaders.ranks.key,
        "engines": [[made.release.id, asked["engines"][1][1]]],
        "program": answering({"loaders": measured}),
    }
    answer = loader_rates.main(asked)
    text = made.head.files["/etc/muster/kimi-k2-instruct/guard.json"].text
    told = config.parse(text.replace('"/srv/m.', f'"{asked["directory"]}.'))
    assert loader_record.loads(told) == "auto=1.03e+03 instanttensor=103"
    assert made.loaders.wire(answer["loaders"]) == loader_record.loads(told)
    assert loader_record.loads(told, 1.0) == "auto=103 instanttensor=103"


# the engine's part, without an engine


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(MIB))
    return [str(path)]


def measured(monkeypatch: pytest.MonkeyPatch, files: list[str], load: Any, seconds: float = 20) -> dict[str, Any]:
    """Measure with processes that load so: `load(rank, begin)`; forked, they have what is set here."""
    monkeypatch.setattr(
        measure_loaders, "_load", lambda request, name, paths, rank, directory, begin: load(rank, begin)
    )
    found: dict[str, Any] = measure_loaders._measured({"ranks": 3, "seconds": seconds}, "auto", files, cold=True)
    return found


def test_the_slowest_rank_says_the_rate(monkeypatch: pytest.MonkeyPatch, files: list[str]) -> None:
    found = measured(monkeypatch, files, lambda rank, begin: {"seconds": [0.5, 2.0, 1.0][rank], "peak": rank})
    assert found == {"rate": MIB // 2, "peak": 2}


def test_the_rank_that_fails_says_why_and_none_that_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, files: list[str]
) -> None:
    def load(rank: int, begin: Any) -> dict[str, Any]:
        if rank == 2:
            raise ValueError("no such card")
        begin.wait()
        return {"seconds": 1.0, "peak": 0}

    for _ in range(5):
        assert measured(monkeypatch, files, load) == {"error": "ValueError: no such card"}


def test_a_rank_that_dies_or_hangs_is_an_error(monkeypatch: pytest.MonkeyPatch, files: list[str]) -> None:
    def dies(rank: int, begin: Any) -> None:
        if rank == 1:
            os._exit(5)
        begin.wait()

    assert measured(monkeypatch, files, dies) == {"error": "a process of it ended with 5"}

    def hangs(rank: int, begin: Any) -> dict[str, Any]:
        return {"seconds": 1.0, "peak": 0} if rank else begin.wait()

    assert measured(monkeypatch, files, hangs, 0.5) == {"error": "it was not done in time"}


def test_without_vllm_the_answer_says_so() -> None:
    answer = measure_loaders.main({"files": {"auto": ["x"]}})
    assert answer == {"error": "vLLM cannot be imported: ModuleNotFoundError: No module named 'vllm'"}


@pytest.mark.parametrize(
    ("experts", "rank", "own"),
    [
        (None, 3, None),
        ({"count": 8, "ranks": 4, "first": 0}, 1, (8, 4, 1)),
        ({"count": 8, "ranks": 16, "first": 8}, 7, (8, 16, 15)),
        ({"count": 8, "ranks": 8, "first": 8}, 1, (8, 8, 1)),  # a second pipeline stage
    ],
)
def test_whose_experts_a_rank_takes(monkeypatch: pytest.MonkeyPatch, experts: Any, rank: int, own: Any) -> None:
    class Filter:
        compute_local_expert_ids = staticmethod(lambda *words: words)

    monkeypatch.setitem(sys.modules, measure_loaders._FILTER, Filter)  # type: ignore[arg-type]
    assert measure_loaders._own_experts(experts, rank) == own
