"""The table reads well: narrow and wide, one host and many, with and without colour."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from muster.preflight import outcome
from muster.preflight.host_report import unreachable
from muster.preflight.node_set import node_set
from muster.preflight.outcome import Outcome
from muster.preflight.table import alike, console_on, render

from . import sample
from .sample import printed


def drawn(result: Outcome, width: int, **console: Any) -> str:
    out = io.StringIO()
    render(result, Console(file=out, width=width, **{"legacy_windows": False, **console}))
    return out.getvalue()


def group(count: int, *, waived: tuple[str, ...] = ()) -> Outcome:
    """Return a group whose last host has MIG on and whose fourth, where there is one, is gone."""
    mig = printed(sample.recorded("h200x2-query-gpu.csv").replace("Disabled", "Enabled", 1))
    reports = []
    for i in range(count):
        odd = {"probe_gpus__gpus": mig} if i == count - 1 else {}
        report = sample.report(f"h200-{i:02}", f"198.51.100.{i}", **odd)
        reports.append(unreachable(report.host, "No route to host") if i == 3 else report)
    needs = {r.host: sample.needs(r.host, f"198.51.100.{i}", hosts=count) for i, r in enumerate(reports)}
    return outcome.judge_group("preflight", reports, needs, waived=waived)


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("count", [1, 2, 16, 64])
def test_no_line_is_wider_than_the_terminal_and_every_trouble_is_told(count: int, width: int) -> None:
    text = drawn(group(count), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert len(text.splitlines()) < 130, "a group of any size fits a few screens"
    assert f"FAIL   gpu.mig  h200-{count - 1:02}" in text
    assert "nvidia-smi -mig 0" in text
    assert ("No route to host" in text) == (count > 3)


def test_many_hosts_are_grouped_and_the_odd_ones_shown() -> None:
    result = group(64)
    assert [len(hosts) for hosts in alike(result)] == [1, 1, 62]
    text = drawn(result, 80)
    assert "62 hosts: h200-[00-02], h200-[04-62]" in text
    assert re.search(r"^check +A +B +C *$", text, re.M)
    assert re.search(r"^gpu\.mig +✗ +✓ *$", text, re.M), "the unreached host has no answer there"


def test_two_hosts_show_what_was_found() -> None:
    text = drawn(group(2), 80)
    assert re.search(r"^gpu\.mig +✓ Disabled +✗ Enabled \(GPU 0\) *$", text, re.M)


def test_more_groups_than_fit_go_below_each_other() -> None:
    one = group(1)
    verdicts = tuple(
        replace(v, host=f"n{n}", level="warn" if n == place else "ok")
        for n in range(40)
        for place, v in enumerate(one.verdicts)
    )
    text = drawn(Outcome("t", tuple(f"n{n}" for n in range(40)), verdicts), 80)
    assert len(re.findall(r"^check ", text, re.M)) > 1
    assert max(len(line) for line in text.splitlines()) <= 80
    assert re.search(r"^AN: n\d+$", text, re.M)


def test_waivers_stand_in_every_report() -> None:
    text = drawn(group(2, waived=("gpu.mig",)), 80)
    assert "waived by preflight_waive: gpu.mig" in text
    assert "waived gpu.mig  h200-01" in text
    assert "1 waived on 2 hosts" in text


def test_colour_only_on_terminals() -> None:
    assert "\x1b[" not in drawn(group(2), 80)
    assert "\x1b[" in drawn(group(2), 80, force_terminal=True)


def test_marks_are_ascii_where_the_terminal_is() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    render(replace(group(2), notes=("驱动程序",)), console_on(out))
    out.seek(0)
    assert re.search(r"^gpu\.mig +\+ Disabled +X Enabled", out.read(), re.M)


def test_brief_is_trouble_and_the_sum() -> None:
    out = io.StringIO()
    render(group(2), Console(file=out, width=80), brief=True)
    text = out.getvalue()
    assert "FAIL   gpu.mig" in text
    assert "host.systemd" not in text


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        (["h3"], "h3"),
        (["h0", "h1"], "h0, h1"),
        ([f"h{i}" for i in range(12)], "h[0-11]"),
        ([f"h{i:02}" for i in range(12) if i != 5], "h[00-04], h[06-11]"),
        (["a1.x", "a2.x", "a3.x", "gateway"], "gateway, a[1-3].x"),
    ],
)
def test_folding(names: list[str], folded: str) -> None:
    assert node_set(names) == folded


@given(st.sets(st.integers(0, 300), max_size=60), st.sampled_from([0, 2, 3]))
def test_folding_loses_no_host(numbers: set[int], width: int) -> None:
    names = {f"h{n:0{width}}" for n in numbers}
    unfolded = set()
    for part in node_set(sorted(names)).split(", "):
        if match := re.fullmatch(r"h\[(\d+)-(\d+)\]", part):
            first, last = match.groups()
            pad = len(first) if first.startswith("0") and len(first) > 1 else 0
            unfolded |= {f"h{n:0{pad}}" for n in range(int(first), int(last) + 1)}
        elif part:
            unfolded.add(part)
    assert unfolded == names
