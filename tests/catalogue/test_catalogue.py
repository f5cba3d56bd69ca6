"""The whole catalogue: every cell has a verdict, every difference is a known one, enough of it is served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.catalogue import facts
from tests.catalogue.expected import Cell, commands, flags, not_offered
from tests.catalogue.verdict import DIFFERS, EXACT, KNOWN, NOT_OFFERED, REFUSED, counts, imported, verdict, verdicts

REFUSALS = {
    "prefill and decode pools",
    "a nightly engine",
    "an image of its own",
    "an omni model",
    "a model that only transcribes",
    "no context_length",
}
TWO_HOSTS = {"H100": (1, 2), "H200": (1, 2)}
"""The cells that the issue of this catalogue was measured on, GPU and numbers of hosts."""


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(TWO_HOSTS, id="two hosts of H100 and H200"),
        pytest.param(None, id="every product, up to four hosts", marks=pytest.mark.nightly),
    ],
)
def test_every_cell_has_a_verdict_and_every_difference_a_name(where: Mapping[str, tuple[int, ...]] | None) -> None:
    found = [each for name, raw in facts.models() for each in verdicts(name, raw, where)]
    assert {each.verdict for each in found} == {EXACT, DIFFERS, REFUSED, NOT_OFFERED}
    assert {reason for each in found if each.verdict == DIFFERS for reason in each.reasons} <= set(KNOWN)
    assert {reason for each in found if each.verdict == REFUSED for reason in each.reasons} <= REFUSALS
    offered = [each for each in found if each.verdict != NOT_OFFERED]
    kinds = counts(offered)
    assert kinds[EXACT] + kinds[DIFFERS] >= 0.84 * len(offered)
    assert kinds[EXACT] >= 0.6 * len(offered)


RAW: dict[str, Any] = {
    "meta": {},
    "model": {"model_id": "org/m", "base_args": ["--a_b", "1", "--max-num-seqs=2"], "base_env": {"X": "1"}},
    "variants": {
        "default": {"vram_minimum_gb": "90", "extra_args": ["--max-num-seqs", "3"]},
        "small": {"vram_minimum_gb": "70", "tp": {"h200": "2"}, "model_id": "org/small"},
        "fp4": {"precision": "nvfp4"},
    },
    "features": {"f": {"modes": {"one": {"args": ["--f", "1"], "variants": ["small"]}, "two": {"args": ["--f", "2"]}}}},
    "compatible_strategies": ["single_node_tp", "multi_node_tp", "multi_node_dep"],
    "strategy_overrides": {
        "multi_node_tp": {"hardware_overrides": {"hopper": {"extra_args": ["--g", "own"]}}},
        "multi_node_dep": {"hardware_overrides": {"h100": {"extra_args": ["--h", "exact"]}}},
    },
    "hardware_overrides": {"hopper": {"extra_args": ["--g", "recipe"], "extra_env": {"X": "2"}}},
}


def head(variant: str, strategy: str, product: str, hosts: int = 1) -> Mapping[str, str]:
    return commands(Cell(RAW, variant, strategy, product, hosts))[0].flags


def test_the_catalogues_command_is_put_together_in_its_order() -> None:
    alone = {"a-b": "1", "max-num-seqs": "3", "tensor-parallel-size": "8", "g": "recipe", "f": "2"}
    assert head("default", "single_node_tp", "H100") == alone
    sizes = {gpu: head("default", "single_node_tp", gpu)["tensor-parallel-size"] for gpu in ("H100", "H20", "H200")}
    assert sizes == {"H100": "8", "H20": "1", "H200": "1"}
    assert head("small", "single_node_tp", "H200")["tensor-parallel-size"] == "2"
    assert head("small", "single_node_tp", "H100")["f"] == "1"


def test_the_catalogues_strategy_replaces_a_generations_block_and_adds_a_products() -> None:
    assert head("default", "multi_node_tp", "H100", 2)["g"] == "own"
    both = head("default", "multi_node_dep", "H100", 2)
    assert (both["g"], both["h"], both["data-parallel-size"]) == ("recipe", "exact", "16")
    follower = commands(Cell(RAW, "default", "multi_node_dep", "H100", 2))[1]
    assert (follower.flags["data-parallel-start-rank"], follower.env["X"]) == ("8", "2")


def test_the_catalogue_keeps_fp4_off_hopper() -> None:
    assert not_offered(Cell(RAW, "fp4", "single_node_tp", "H200", 1)) == "nvfp4 weights"
    assert not_offered(Cell(RAW, "default", "single_node_dep", "H200", 1)) == "the strategy on this GPU"


def test_of_a_flag_the_last_word_counts() -> None:
    assert flags(["-tp", "4", "--tensor_parallel_size=8", "--x.y_z", "1", "--on"]) == {
        "tensor-parallel-size": "8",
        "x.y_z": "1",
        "on": "",
    }


def test_a_flag_that_is_planned_otherwise_is_no_known_difference() -> None:
    name, raw = next(facts.models())
    cell = Cell(raw, "default", "single_node_tp", "H200", 1)
    (right,) = {each.verdict for each in verdicts(name, raw, {"H200": (1,)}) if each.cell == cell}
    assert right in (EXACT, DIFFERS)
    changed = {**raw, "model": {**raw["model"], "base_args": [*raw["model"]["base_args"], "--max-num-seqs", "7"]}}
    made = verdict(Cell(changed, "default", "single_node_tp", "H200", 1), imported(name, raw, "default"))
    assert set(made.reasons) - set(KNOWN) == {"--max-num-seqs: '7', planned None"}
