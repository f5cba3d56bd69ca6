"""The seeds' commands are planned on any number of GPUs of one machine, and what was seen is set beside the plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.spec import recipe
from tests.gpu import model, run, seeds
from tests.gpu.cases import CASES, find, sized

KEPT = Path(__file__).parents[2] / "benchmarks/results/2026-11-27-h100x4-seeds.json"


@pytest.fixture
def kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    return found


def planned(name: str, slot: int) -> Plan:
    case = find(name)
    settings = run.settings_of(case, site="", slot=slot)
    return build_plan(recipe.load(case.recipe), case.specs("H100"), settings)


@pytest.fixture(autouse=True)
def _no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with TemporaryDirectory(dir="/dev/shm") as place:  # a unit would see nothing below /tmp
        monkeypatch.setattr(run, "MODELS", Path(place))
        monkeypatch.setattr(model, "write_tokenizer", lambda out: None)  # needs a package that the tests do not
        yield


@pytest.mark.parametrize(
    ("gpus", "labels"),
    [
        (2, ["TP2", "TP2+DCP2", "TP2", "TP2+DCP2", "TP1+PP2", "TP1+PP2", "DP2+EP"]),
        (4, ["TP4", "TP4+DCP4", "TP4", "TP4+DCP4", "TP2+PP2", "TP2+PP2", "DP4+EP"]),
        (8, ["TP8", "TP8+DCP8", "TP8", "TP8+DCP8", "TP4+PP2", "TP4+PP2", "DP8+EP"]),
    ],
)
def test_every_command_takes_all_gpus_and_all_run_side_by_side(gpus: int, labels: list[str]) -> None:
    plans = [planned(name, slot) for slot, name in enumerate(sized(gpus))]
    assert [each.label for each in plans] == labels
    assert {sum(host.gpus for host in each.hosts.values()) for each in plans} == {gpus}
    assert len({each.group for each in plans}) == len({each.local_endpoint for each in plans}) == len(plans)
    weights = [
        run.planned(each, run.settings_of(find(name), site="", slot=0))
        for name, each in zip(sized(gpus), plans, strict=True)
    ]
    assert all(31 < each["weights_gib"] < 34 for each in weights[:2])


def test_each_step_names_cases_that_there_are() -> None:
    commands = seeds.steps(8, Path("out"), "/site", ["published-planned@empty"])
    named = [word.partition("@")[0] for step in ("alone", "beside") for word in commands[step] if "@" in word]
    assert [find(name).name.partition("-of-")[0] for name in named] == [
        *seeds.ALONE,
        *seeds.BESIDE,
        "published-planned",
    ]
    assert find(commands["guarded"][commands["guarded"].index("--case") + 1]).hosts == (2, 4)
    with pytest.raises(KeyError):
        find("tp-dcp-of-8")
    assert find("tp") is CASES["tp"]


def test_what_was_seen_is_set_beside_the_plan(kept: dict[str, Any]) -> None:
    result = seeds.gathered({"machine": kept["machine"], "cases": kept["cases"]}, {})
    assert result["memory"] == [
        {**row, "said": {k: tuple(v) for k, v in row["said"].items()}} for row in kept["memory"]
    ]
    (whole, equal) = result["dcp"]
    assert (whole["times"], equal["times"]) == (3.497, 4.0)
    assert equal["queues"]["output_throughput"] > 2
    weights = {row["case"]: row["off"]["weights_gib"] for row in result["memory"]}
    assert max(map(abs, weights.values())) < seeds.WITHIN
    assert "202,544 -> 810,176 tokens (4 x)" in seeds.markdown(result)
