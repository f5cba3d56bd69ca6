"""What a group's weights may be loaded by: who chooses at all, what guards are told, and what people read of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muster.guard import config
from muster.guard.group_settings import Loading
from muster.plan import loaders
from muster.plan.layout import Layout
from muster.plan.load_ranks import LoadRanks
from muster.plan.loaders import MARGIN, NAMES, Choice
from muster.spec.hardware import GIB, GPUS
from muster.spec.settings import Settings
from muster.spec.shape import Shape
from tests.plan.test_cold_load import EXPERTS, layout
from tests.sample_plans import plan

GB = 10**9
HERE: dict[str, Any] = {"model": "/srv/m", "offline": True}
RECORD = "/srv/m.loaders.json"


def chosen(shape: Shape | None = EXPERTS, sizes: Layout | None = None, flags: Any = None, **more: Any) -> Choice | None:
    settings = Settings(**{**HERE, **more})
    return loaders.of(settings, shape, sizes or layout(), GPUS["H200"], None, flags or {})


@pytest.mark.parametrize(
    ("sizes", "share"),
    [
        (layout(), 1.0),
        (layout(tp=16, engine_hosts=2), 1.0),
        (layout(pp=2, engine_hosts=2), 0.5),
        (layout(tp=4, pp=4, engine_hosts=2), 0.5),
        (layout(tp=4, pp=2), 1.0),
        (layout(tp=1, dp=16, dp_local=8, expert_parallel=True), 1.0),
    ],
)
def test_who_maps_the_files_reads_its_own_stages_and_others_read_all(sizes: Layout, share: float) -> None:
    choice = chosen(sizes=sizes)
    assert choice is not None
    room = GPUS["H200"].memory_bytes - MARGIN
    assert choice.loading == Loading(RECORD, int(10**12 * share), 10**12, room, NAMES, "vllm", choice.ranks.key)


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": {"source": "hub", "loader": "auto"}},
        {"supervisor": "systemd"},
        {"model": "org/model", "offline": False},
        {"model": None, "offline": False},
    ],
    ids=["the user's word", "no guard", "no directory", "no model"],
)
def test_where_nothing_may_choose(settings: dict[str, Any]) -> None:
    assert chosen(**settings) is None


@pytest.mark.parametrize(
    "flags",
    [
        {"load-format": "runai_streamer"},
        {"load-format": "dummy"},
        {"safetensors-load-strategy": "prefetch"},
        {"model-loader-extra-config": "{}"},
    ],
)
def test_a_choice_of_the_users_stands(flags: dict[str, str]) -> None:
    assert chosen(flags=flags) is None


def test_small_and_unknown_models_are_not_worth_it() -> None:
    assert chosen(None) is None
    for size, worth in ((8 * GIB, True), (8 * GIB - 1, False)):
        assert (chosen(EXPERTS.model_copy(update={"weight_bytes": size})) is not None) is worth


def test_a_full_gpu_leaves_no_room() -> None:
    class Full:
        used = GPUS["H200"].memory_bytes

    choice = loaders.of(Settings(**HERE), EXPERTS, layout(), GPUS["H200"], Full(), {})  # type: ignore[arg-type]
    assert choice is not None
    assert choice.loading.room == 0


# in a plan


def files(name: str, **settings: Any) -> list[dict[str, Any]]:
    """Return a file of each host's guards; an empty one where there is none."""
    made = plan("kimi-k2-instruct", 2, "H200", **{**HERE, **settings})
    texts = [host.files.get(f"/etc/muster/kimi-k2-instruct/{name}") for host in made.hosts.values()]
    return [json.loads(file.text) if file else {} for file in texts]


@pytest.mark.parametrize("settings", [{}, {"strategy": "tp-pp"}, {"executor": "ray", "strategy": "tp-pp"}])
def test_every_guard_is_told_what_the_head_chooses_from(settings: dict[str, Any]) -> None:
    made = plan("kimi-k2-instruct", 2, "H200", **{**HERE, **settings})
    assert made.loaders is not None
    for host in made.hosts.values():
        read = config.parse(host.files["/etc/muster/kimi-k2-instruct/guard.json"].text)
        assert read.loading == made.loaders.loading
        assert read.loading is not None
        assert read.loading.record == RECORD
        assert 0 < read.loading.room < GPUS["H200"].memory_bytes


def test_where_daemons_keep_the_weights_they_load_them() -> None:
    kept = {"keep_weights": True, "strategy": "dp-ep"}
    assert ["loading" in each for each in files("guard.json", **kept)] == [False, False]
    for host in plan("kimi-k2-instruct", 2, "H200", **{**HERE, **kept}).hosts.values():
        read = config.parse(host.files["/etc/muster/kimi-k2-instruct/weights.json"].text)
        assert read.loading is not None
        assert read.loading.process == "weights"
        assert [child.name for child in read.children] == ["weights"]
    assert ["loading" in each for each in files("weights.json", **kept, weights={"loader": "auto"})] == [False, False]


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": {"loader": "auto"}},
        {"extra_args": ["--load-format", "fastsafetensors"]},
        {"extra_args": ["--load_format=dummy"]},
        {"model": None, "offline": False},
    ],
)
def test_without_a_choice_no_guard_is_told_of_one(settings: dict[str, Any]) -> None:
    assert ["loading" in each for each in files("guard.json", **settings)] == [False, False]
    assert plan("kimi-k2-instruct", 2, "H200", **{**HERE, **settings}).loaders is None


# in words

LOADING = Loading(RECORD, 120 * GB, 240 * GB, 8 * GB, NAMES, "vllm", "r")
CHOICE = Choice(LOADING, LoadRanks(8, 8, 8), "e")


def kept(engine: str = "e", age: int = 300, **rates: float) -> dict[str, Any]:
    """Return a measurement, of GB a second."""
    found = {name.replace("_cached", "-cached"): {"rate": int(rate * GB), "peak": GB} for name, rate in rates.items()}
    return {"engine": engine, "ranks": CHOICE.ranks.key, "age": age, "loaders": found}


def test_what_was_just_measured_is_one_line() -> None:
    measured = kept(auto=1.4, auto_cached=5.7, instanttensor=3.14)
    assert CHOICE.line(measured) == "loads weights by auto 1.4 GB/s (5.7 from the page cache), instanttensor 3.1"
    assert CHOICE.line(kept(fastsafetensors=2)) == "loads weights by fastsafetensors 2 GB/s"


def test_what_is_expected_is_of_the_loader_that_would_be_taken() -> None:
    fast, slow = kept(auto=2, instanttensor=12, fastsafetensors=6), kept(age=600, auto=1, instanttensor=8)
    assert CHOICE.expected({"a": fast, "b": slow}) == (
        "a cold load by instanttensor: 30 s expected; auto 2 min (measured 10 min ago)"
    )
    assert CHOICE.expected({"a": fast}) == (
        "a cold load by instanttensor: 20 s expected; fastsafetensors 40 s, auto 60 s (measured 5 min ago)"
    )


def test_no_clear_gain_is_auto() -> None:
    assert CHOICE.expected({"a": kept(auto=2, instanttensor=4.5)}) == (
        "a cold load by auto: 60 s expected; instanttensor 53 s (measured 5 min ago)"
    )
    assert CHOICE.expected({"a": kept(auto=2)}) == "a cold load by auto: 60 s expected (measured 5 min ago)"


def test_what_takes_more_memory_than_there_is_does_not_count() -> None:
    hungry = kept(auto=2, instanttensor=12)
    hungry["loaders"]["instanttensor"]["peak"] = 9 * GB
    assert "instanttensor" not in CHOICE.expected({"a": hungry})


@pytest.mark.parametrize(
    "by_host",
    [
        {},
        {"a": None},
        {"a": kept(auto=1), "b": None},
        {"a": kept(auto=1), "b": kept("other", auto=1)},
        {"a": {**kept(auto=1), "ranks": "2-2-2-0-1-0"}},
        {"a": kept(instanttensor=3)},
        {"a": kept(auto=1), "b": kept(instanttensor=3)},
    ],
    ids=["no host", "none", "one of two", "two engines", "another layout", "not auto", "nothing in common"],
)
def test_nothing_is_expected_where_something_is_not_known(by_host: dict[str, Any]) -> None:
    assert CHOICE.expected(by_host) == ""


def test_the_seconds_of_one_host() -> None:
    measured = kept(auto=2, auto_cached=20, instanttensor=12)
    assert CHOICE.seconds(measured, "") == CHOICE.seconds(measured, "auto") == 60
    assert CHOICE.seconds(measured, "instanttensor") == 20
    assert CHOICE.seconds(measured, "runai_streamer") is None
    assert CHOICE.seconds(None, "") is None
