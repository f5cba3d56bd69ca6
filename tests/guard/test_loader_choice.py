"""The choice of a loader: one for all hosts, measured on each, and only where it is a clear gain."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.guard import loader_choice
from muster.guard.group_settings import Loading
from muster.guard.loader_choice import GAIN, LIMIT, Measured

GB = 10**9
NAMES = ("instanttensor", "fastsafetensors", "runai_streamer")
LOADING = Loading("/w/rev.loaders.json", 100 * GB, 200 * GB, 8 * GB, NAMES, "vllm", "r")
RECORD = {
    "engine": "0.33.0",
    "ranks": "r",
    "device": 7,
    "at": 1.8e9,
    "loaders": {
        "auto": {"rate": 1 * GB, "peak": 0},
        "auto-cached": {"rate": 4 * GB, "peak": 0},
        "instanttensor": {"rate": 8 * GB, "peak": 8 * GB},
        "fastsafetensors": {"rate": 9 * GB, "peak": 9 * GB},
        "another": {"rate": 90 * GB, "peak": 0},
    },
}


def test_a_record_counts_for_its_engine_and_its_disk() -> None:
    found = loader_choice.measured(RECORD, "0.33.0", "r", 7)
    assert found["instanttensor"] == Measured(8 * GB, 8 * GB)
    assert set(found) == set(RECORD["loaders"])  # type: ignore[call-overload]
    assert loader_choice.measured(RECORD, "0.32.0", "r", 7) == {}
    assert loader_choice.measured(RECORD, "0.33.0", "r", 8) == {}
    assert loader_choice.measured(RECORD, "0.33.0", "s", 7) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"loaders": None},
        {"loaders": [1]},
        {"loaders": {"auto": 5}},
        {"loaders": {"auto": {"rate": 1}}},
        {"loaders": {"auto": {"rate": 0, "peak": 0}}},
        {"loaders": {"auto": {"rate": 1.5, "peak": 0}}},
        {"loaders": {"auto": {"rate": True, "peak": 0}}},
        {"loaders": {"auto": {"rate": 1, "peak": -1}}},
        {"loaders": {"auto": {"rate": 2**53, "peak": 0}}},
        {"device": "7"},
        {"engine": None},
    ],
)
def test_an_odd_record_is_no_measurement(change: dict[str, object]) -> None:
    assert loader_choice.measured({**RECORD, **change}, "0.33.0", "r", 7) == {}


def test_the_seconds_of_each_loader_that_fits_and_is_planned() -> None:
    record = loader_choice.measured(RECORD, "0.33.0", "r", 7)
    assert loader_choice.seconds_of(record, LOADING, 0.0) == {"auto": 100.0, "instanttensor": 25.0}
    assert loader_choice.seconds_of(record, LOADING, 0.5)["auto"] == 62.5
    assert loader_choice.seconds_of(record, LOADING, 1.0)["auto"] == 25.0
    without = {name: each for name, each in record.items() if name != "auto-cached"}
    assert loader_choice.seconds_of(without, LOADING, 0.5)["auto"] == 100.0
    assert loader_choice.seconds_of({}, LOADING, 0.5) == {}


def test_times_travel_as_words() -> None:
    assert loader_choice.to_wire({"instanttensor": 24.0, "auto": 91.23}) == "auto=91.2 instanttensor=24"
    assert loader_choice.from_wire("auto=91.2 instanttensor=24") == {"auto": 91.2, "instanttensor": 24.0}
    longest = dict.fromkeys(("auto", *(letter * 32 for letter in "bcdef")), 123456.0)
    assert len(loader_choice.to_wire(longest)) <= LIMIT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "auto",
        "auto=",
        "auto=-1",
        "auto=nan",
        "auto=inf",
        "auto=1 ",
        "auto=1  x=2",
        "auto=1 auto=1",
        "x=2 auto=1",
        "auto=1.234",
        "auto=1\n",
        "Auto=1",
        "auto=1 " + "x" * 256 + "=1",
        "auto=٣",
    ],
)
def test_what_no_guard_writes_is_no_time(text: str) -> None:
    assert loader_choice.from_wire(text) == {}


names = st.sampled_from(("auto", *NAMES, "another"))
times = st.dictionaries(names, st.floats(0.001, 1e7))
wires = times.map(loader_choice.to_wire) | st.text(string.ascii_lowercase + "= .0123456789", max_size=40)


@given(times)
def test_times_arrive_as_they_were_sent(seconds: dict[str, float]) -> None:
    text = loader_choice.to_wire(seconds)
    assert loader_choice.from_wire(text) == {name: float(f"{each:.3g}") for name, each in seconds.items()}


@given(st.text(max_size=300) | wires)
def test_whatever_arrives_is_read_or_is_nothing(text: str) -> None:
    found = loader_choice.from_wire(text)
    assert not found or loader_choice.to_wire(found) == text


@given(st.dictionaries(st.sampled_from("abcd"), wires), st.lists(names), st.lists(names, unique=True), st.randoms())
def test_what_is_chosen_is_measured_everywhere_fit_and_a_gain(hosts, unfit, known, random) -> None:  # type: ignore[no-untyped-def]
    known = [name for name in known if name != "auto"]
    chosen = loader_choice.choose(hosts, unfit, known)
    mixed = random.sample(sorted(hosts), len(hosts))
    assert chosen == loader_choice.choose({host: hosts[host] for host in mixed}, unfit[::-1], known[::-1])
    if chosen:
        assert chosen in known
        assert chosen not in unfit
        read = [loader_choice.from_wire(text) for text in hosts.values()]
        worst = {name: max(each[name] for each in read) for name in (chosen, "auto")}
        assert worst[chosen] * GAIN <= worst["auto"]


def test_the_slowest_host_decides() -> None:
    hosts = {"a": "auto=90 fastsafetensors=10 instanttensor=30", "b": "auto=80 fastsafetensors=40 instanttensor=30"}
    assert loader_choice.choose(hosts, (), NAMES) == "instanttensor"
    assert loader_choice.choose(hosts, ("instanttensor",), NAMES) == "fastsafetensors"
    assert loader_choice.choose(hosts, NAMES, NAMES) == ""
    assert loader_choice.choose(hosts, (), ("fastsafetensors",)) == "fastsafetensors"
    assert loader_choice.choose({**hosts, "c": ""}, (), NAMES) == ""
    assert loader_choice.choose({}, (), NAMES) == ""


def test_a_small_gain_is_none_and_equals_are_taken_by_name() -> None:
    assert loader_choice.choose({"a": "auto=50 instanttensor=40"}, (), NAMES) == "instanttensor"
    assert loader_choice.choose({"a": "auto=50 instanttensor=40.1"}, (), NAMES) == ""
    assert loader_choice.choose({"a": "instanttensor=40"}, (), NAMES) == "", "auto is not measured"
    tied = {"a": "auto=50 fastsafetensors=20 instanttensor=20"}
    assert loader_choice.choose(tied, (), NAMES) == loader_choice.choose(tied, (), NAMES[::-1]) == "fastsafetensors"


def test_small_changes_are_no_news() -> None:
    assert loader_choice.newest("auto=100", "auto=105") == "auto=100"
    assert loader_choice.newest("auto=100", "auto=106") == "auto=106"
    assert loader_choice.newest("auto=100", "auto=100 instanttensor=20") == "auto=100 instanttensor=20"
    assert loader_choice.newest("auto=100", "") == ""
    assert loader_choice.newest("", "") == ""


def test_the_words_end_the_command_line() -> None:
    assert loader_choice.words(("vllm", "serve", "m"), "instanttensor") == [
        *("vllm", "serve", "m", "--load-format", "instanttensor")
    ]
    assert loader_choice.words(("vllm", "serve", "m"), "") == ["vllm", "serve", "m"]
