"""The parsers read what real tools print, and turn anything else into a value, never a traceback."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.preflight import read_report, smi, tool_text
from muster.preflight.checks import local
from muster.preflight.host_report import HostReport
from muster.preflight.tool_text import DriverLog, Unreadable
from muster.spec import versions

from . import sample
from .sample import printed

RECORDED = [
    "h200x2-query-gpu.csv",
    "h200x2-compute-apps-idle.csv",
    "h200x2-nvlink-s.txt",
    "h200x2-topo-m.txt",
    "h200x2-q.xml",
]
PARSERS = [smi.gpus, smi.apps, smi.remapped, smi.nvlinks, smi.topology, tool_text.driver_log, tool_text.links]

words = st.sampled_from([
    "", "\n", "\t", ", ", "GPU 0:", "\t Link 0: ", "26.562 GB/s", "<inactive>", "GPU0\tGPU1\n", " X ", "NV18", "uuid",
    "index, name, uuid\n", "0, NVIDIA H200, GPU-1\n", "[N/A]", "0x", "0xfffffffffffffffffffff", "9" * 400, "\x00",
    "\x1b[4m", "驱动程序", "Il n'y a pas de périphérique", "NVRM: Xid (PCI:0000:3b:00): ", "79", "NVRM: Xid (",
    "[{", "}]", '{"ifname": "eth0"}', '"', "[[[[",
    "pid, process_name, gpu_uuid, used_gpu_memory [MiB]\n", "1, a, b, c, d, 5 MiB\n",
])  # fmt: skip
cut = st.builds(
    lambda name, start, length: sample.recorded(name)[start : start + length],
    st.sampled_from(RECORDED),
    st.integers(0, 2000),
    st.integers(0, 3000),
)
texts = st.one_of(st.text(max_size=400), st.lists(words, max_size=30).map("".join), cut)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def answered(text: str) -> dict[str, Any]:
    found: dict[str, Any] = printed(text)["value"]
    return found


@given(text=texts)
def test_parsers_are_total_over_text(text: str) -> None:
    for parser in PARSERS:
        assert isinstance(parser(answered(text)), (tuple, dict, DriverLog, Unreadable))


@given(value=jsons)
def test_parsers_are_total_over_answers_of_any_shape(value: Any) -> None:
    for parser in PARSERS:
        assert isinstance(parser(value), (tuple, dict, DriverLog, Unreadable))


KEYS = ["probe_gpus", "probe_machine", "probe_engine", *sample.answers()["probe_gpus"],
        *sample.answers()["probe_machine"],
        "value", "error", "text", "rc", "ports", "gid_types", "release", "versions", "files", "own",
        "unit"]  # fmt: skip
shaped = st.recursive(
    jsons | texts, lambda inner: st.dictionaries(st.sampled_from(KEYS), inner, max_size=6), max_leaves=8
)


@given(value=st.dictionaries(st.sampled_from(KEYS), shaped, max_size=6))
def test_any_answer_makes_a_report_and_verdicts(value: dict[str, Any]) -> None:
    report = read_report.from_answers("h200-0", value, 1.0, 2.0)
    assert isinstance(report, HostReport)
    assert local(report, sample.needs())


@given(data=st.data())
def test_one_source_gone_wrong_is_verdicts(data: st.DataObject) -> None:
    answers = sample.answers()
    program = data.draw(st.sampled_from(["probe_gpus", "probe_machine"]))
    source = data.draw(st.sampled_from(sorted(answers[program])))
    answers[program][source] = data.draw(shaped | texts.map(printed))
    assert local(read_report.from_answers("h200-0", answers, 1.0, 2.0), sample.needs())


@pytest.mark.parametrize("parser", PARSERS)
def test_gigantic_output_is_unreadable_or_small(parser: Any) -> None:
    for text in ("x" * 8_000_000, "GPU 0: a\n" * 500_000, "index, uuid\n" + "0, b\n" * 500_000, "[" * 2_000_000):
        found = parser(answered(text))
        assert isinstance(found, Unreadable) or len(getattr(found, "lines", found)) <= 4096


@pytest.mark.parametrize("parser", PARSERS)
def test_truncated_by_the_host_is_unreadable(parser: Any) -> None:
    answer = {**answered(sample.recorded("h200x2-query-gpu.csv")), "truncated": True}
    assert isinstance(parser(answer), Unreadable)


def test_recorded_gpus() -> None:
    found = smi.gpus(answered(sample.recorded("h200x2-query-gpu.csv")))
    assert isinstance(found, tuple)
    assert [(g.index, g.name, g.memory_mib, g.driver) for g in found] == [
        (0, "NVIDIA H200", 143771, "580.159.04"),
        (1, "NVIDIA H200", 143771, "580.159.04"),
    ]
    first = found[0]
    assert (first.mig, first.ecc, first.uncorrected, first.retired_pending) == ("Disabled", "Enabled", 0, None)
    assert (first.fabric_state, first.fabric_status, first.throttle) == ("Completed", "Success", 1)


def test_a_cut_row_is_unreadable_not_one_gpu_less() -> None:
    text = sample.recorded("h200x2-query-gpu.csv")
    assert smi.gpus(answered(text[:-60])) == Unreadable("row 2 of nvidia-smi has 10 of 15 columns")


def test_recorded_links_and_topology() -> None:
    assert smi.nvlinks(answered(sample.recorded("h200x2-nvlink-s.txt"))) == {0: (18, 18), 1: (18, 18)}
    assert smi.topology(answered(sample.recorded("h200x2-topo-m.txt"))) == {(0, 1): "NV18", (1, 0): "NV18"}
    underlined = sample.recorded("h200x2-topo-m.txt").replace("\tGPU0\t", "\t\x1b[4mGPU0\t", 1)
    assert smi.topology(answered(underlined)) == {(0, 1): "NV18", (1, 0): "NV18"}


def test_process_names_may_hold_commas() -> None:
    text = "pid, process_name, gpu_uuid, used_gpu_memory [MiB]\n7, python -c a, b, GPU-1, 5 MiB\n"
    (app,) = smi.apps({**answered(text), "cgroups": {"7": "0::/x"}})  # type: ignore[misc]
    assert (app.pid, app.name, app.gpu, app.cgroup) == (7, "python -c a, b", "GPU-1", "0::/x")


def test_driver_log() -> None:
    line = "[  10.5] NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
    log = tool_text.driver_log({**answered(line + "\nusb 1-1: new device\n"), "repaired": 5})
    assert isinstance(log, DriverLog)
    assert [(each.code, each.device, each.seconds, each.line) for each in log.lines] == [(79, "0000:3b:00", 10.5, line)]
    assert log.repaired == 5.0


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("580.159.04", (580, 159, 4)), ("Fabric Manager version is : 535.183.01", (535, 183, 1)), ("none", None)],
)
def test_versions(text: str, numbers: tuple[int, ...] | None) -> None:
    assert versions.version(text) == numbers


def test_links_read_ip() -> None:
    (_, eth) = tool_text.links(answered(sample.links("198.51.100.7", mtu=1500)))  # type: ignore[misc]
    assert (eth.name, eth.mtu, eth.up, eth.addresses) == ("eth1", 1500, True, ("198.51.100.7",))
    assert isinstance(tool_text.links(answered(json.dumps({"a": 1}))), tuple)
    assert tool_text.links(answered('Object "addr" is unknown')) == Unreadable(
        'ip -j printed: Object "addr" is unknown'
    )
