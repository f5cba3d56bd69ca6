"""The status of all groups of an inventory: a row for each, and what keeps those that are not whole."""

from __future__ import annotations

from rich.console import Console

from muster.commands.fleet_text import render
from muster.edge.edge_plan import edge_group, edge_plan
from muster.spec.settings import Settings
from muster.status.fleet_status import EdgeLoad, FleetStatus, fleet_status, hosts_at_work, note
from muster.status.group_status import group_status
from tests.status.test_group_status import OTHER, PLAN, answers

WELL = group_status(PLAN, answers())
FAILED = group_status(PLAN, answers(ready=False, phase="failed", reason="failed: vllm ended with 1"))
OFF = group_status(PLAN, {**answers(ready=False, phase="gather", reason="", engines=[]), OTHER: {"error": "timed out"}})


def shown(status: FleetStatus) -> list[str]:
    console = Console(width=100, highlight=False, no_color=True)
    with console.capture() as captured:
        console.print(render(status, "fleet.py"))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_fleet_is_whole_when_every_group_is() -> None:
    assert FleetStatus([WELL, WELL]).whole
    assert not FleetStatus([WELL, FAILED]).whole
    assert FleetStatus([WELL, FAILED, OFF]).ready == 1


def test_each_group_has_a_row_and_a_reason_where_it_is_not_whole() -> None:
    lines = shown(FleetStatus([WELL, FAILED, OFF]))
    assert lines[0] == "1 of 3 groups serve"
    rows = [line.split() for line in lines if line.startswith("kimi-k2-instruct ")]
    assert [row[1] for row in rows] == ["running", "failed", "gather"]
    assert [row[2] for row in rows] == ["2/2", "2/2", f"{hosts_at_work(OFF)}/2"]
    assert "kimi-k2-instruct: vllm ended with 1" in lines
    assert f"kimi-k2-instruct: {OTHER}: timed out" in lines
    assert lines[-1] == "one of them: muster status fleet.py --group NAME"


def test_a_group_that_is_whole_has_no_note() -> None:
    assert note(WELL) == ""
    assert hosts_at_work(WELL) == len(PLAN.hosts) > hosts_at_work(OFF)


def test_a_shortage_and_an_edge_that_gives_no_answer_are_said_below_the_table() -> None:
    behind = edge_plan([edge_group(PLAN, Settings())], Settings().edge)
    status = fleet_status([FAILED], behind, EdgeLoad({"kimi-k2": 9}, {"edge-0": "HAProxy does not run"}))
    lines = shown(status)
    assert "kimi-k2: 9 requests run or wait; without kimi-k2-instruct nobody serves it" in lines
    assert "edge-0, an edge: HAProxy does not run" in lines
    assert fleet_status([WELL], behind, EdgeLoad({"kimi-k2": 9})).shortages == []


def test_json_says_of_each_group_whether_it_is_whole() -> None:
    data = FleetStatus([WELL]).as_json()
    assert (data["whole"], data["ready"], list(data["groups"])) == (True, 1, [PLAN.group])
    assert data["groups"][PLAN.group]["whole"] is True
    assert data["groups"][PLAN.group]["phase"] == "running"
