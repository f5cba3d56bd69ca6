"""What a changed group of a fleet must be as good as, and what is refused before anything is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muster.bench import ledger, run_eval
from muster.bench.measured_group import MeasuredGroup
from muster.bench.roll_gate import BenchGate, EvalGate, gates, judged
from muster.errors import Refusal
from muster.spec.settings import Settings
from tests.bench.sample import entry, evaluation
from tests.sample_plans import plan

RECIPE = "kimi-k2-instruct"


def run(**more: Any) -> Any:
    return SimpleNamespace(plan=plan(RECIPE, 2, "H200", **more), settings=Settings(**more))


def kept(place: Path, **fields: Any) -> BenchGate:
    ledger.write(place, replace(entry(), **{"recipe": RECIPE, "scenario": "h200", **fields}))
    return BenchGate(str(place), place)


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
        BenchGate("none", tmp_path / "good").require(RECIPE, run())


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


def kept_scores(place: Path, **fields: Any) -> EvalGate:
    ledger.write(place, replace(evaluation(94, 100), **{"recipe": RECIPE, **fields}))
    return EvalGate(str(place), place)


def test_a_kept_evaluation_of_the_recipe_is_needed(tmp_path: Path) -> None:
    kept_scores(tmp_path / "good").require(RECIPE, run())
    for name, fields in {
        "other": {"recipe": "other"},
        "task": {"scenario": "mmlu"},
        "bad": {"problems": ("x",)},
        "bench": {"kind": "bench"},
    }.items():
        with pytest.raises(Refusal, match="no completed run of kimi-k2-instruct's gsm8k") as refused:
            kept_scores(tmp_path / name, **fields).require(RECIPE, run())
        assert "muster eval INVENTORY --group kimi-k2-instruct" in refused.value.fix
    with pytest.raises(Refusal, match="no completed run of kimi-k2-instruct's gsm8k"):
        EvalGate(str(tmp_path / "benched"), kept(tmp_path / "benched").ledger).require(RECIPE, run())


def test_a_group_that_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    gate = kept_scores(tmp_path)
    embeds = run()
    embeds.plan = replace(embeds.plan, endpoint_kind="embeddings")
    with pytest.raises(Refusal, match="answers embeddings"):
        gate.require(RECIPE, embeds)
    with pytest.raises(Refusal, match="offline and has no questions"):
        gate.require(RECIPE, run(offline=True))
    gate.require(RECIPE, run(offline=True, gsm8k_path="/srv/gsm8k"))


def test_the_newest_run_of_the_baseline_says_what_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.write(tmp_path, replace(evaluation(1200, 1319), recipe=RECIPE))
    ledger.write(tmp_path, replace(evaluation(94, 100, 2), recipe=RECIPE, load={"fewshot": 3}))
    ledger.write(tmp_path, replace(evaluation(40, 50, 3), recipe=RECIPE, problems=("cut",)))
    asked: list[dict[str, Any]] = []
    right = 90

    def evaluate(*_: object, **how: Any) -> tuple[ledger.LedgerEntry, list[object]]:
        asked.append(how)
        return replace(evaluation(right, 100, 4), recipe=RECIPE, load={"fewshot": how["fewshot"]}), []

    monkeypatch.setattr(run_eval, "evaluate", evaluate)
    monkeypatch.setattr(MeasuredGroup, "check", lambda _: None)
    monkeypatch.setattr("muster.bench.roll_gate.hosts_of", lambda _: {})
    gate = EvalGate(str(tmp_path), tmp_path)
    assert gate.problem(None, RECIPE, run()) == ""  # type: ignore[arg-type]
    assert (asked[0]["limit"], asked[0]["fewshot"], asked[0]["directory"]) == (100, 3, tmp_path)
    right = 60
    assert gate.problem(None, RECIPE, run()).startswith("WORSE gsm8k, 3 examples, 100 questions")  # type: ignore[arg-type]
    monkeypatch.setattr(MeasuredGroup, "check", lambda _: refuse())
    assert gate.problem(None, RECIPE, run()) == "rank 1 did not answer"  # type: ignore[arg-type]


def refuse() -> None:
    raise Refusal("rank 1 did not answer")


def test_an_evaluation_is_asked_before_a_scenario_is_measured() -> None:
    assert [type(gate) for gate in gates("a", "b")] == [EvalGate, BenchGate]
    assert gates(None, "b") == [EvalGate("b")]
    assert gates(20261121, None) == [BenchGate("20261121")]
    assert gates("", None) == []
