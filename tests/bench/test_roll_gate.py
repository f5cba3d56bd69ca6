"""What a changed group of a fleet must be as good as, and what is refused before anything is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.bench import ledger
from muster.bench.roll_gate import RollGate, judged
from muster.errors import Refusal
from muster.spec.settings import Settings
from tests.bench.sample import entry
from tests.sample_plans import plan

RECIPE = "kimi-k2-instruct"


def run(**more: Any) -> Any:
    return SimpleNamespace(plan=plan(RECIPE, 2, "H200", **more), settings=Settings(**more))


def kept(place: Path, **fields: Any) -> RollGate:
    ledger.write(place, replace(entry(), **{"recipe": RECIPE, "scenario": "h200", **fields}))
    return RollGate(str(place), place)


def test_a_kept_run_of_the_recipe_and_scenario_is_needed(tmp_path: Path) -> None:
    kept(tmp_path / "good").require(RECIPE, run())
    for name, fields in {
        "other": {"recipe": "other"},
        "load": {"scenario": "h800"},
        "bad": {"problems": ("x",)},
    }.items():
        with pytest.raises(Refusal, match="no completed run of kimi-k2-instruct's h200") as refused:
            kept(tmp_path / name, **fields).require(RECIPE, run())
        assert "muster bench INVENTORY --group kimi-k2-instruct" in str(refused.value)
    with pytest.raises(Refusal, match="no baseline 'none'"):
        RollGate("none", tmp_path / "good").require(RECIPE, run())


def test_runs_of_the_roll_itself_are_no_baseline(tmp_path: Path) -> None:
    gate = kept(tmp_path)
    gate.require(RECIPE, run())
    ledger.write(tmp_path, replace(entry(), id="later", recipe=RECIPE, scenario="h200"))
    assert [each.id for each in gate._kept] == [entry().id]


def test_a_run_that_fails_or_is_worse_does_not_pass() -> None:
    before = [entry()]
    assert judged(before, before, tolerance=0.05) == ""
    assert "3 of 8 requests failed" in judged(
        before, [replace(entry(), problems=("3 of 8 requests failed",))], tolerance=0.05
    )
    slower = {**entry().figures, "output_throughput": entry().figures["output_throughput"] * 0.8}
    assert judged(before, [replace(entry(), figures=slower)], tolerance=0.05).startswith("WORSE")
