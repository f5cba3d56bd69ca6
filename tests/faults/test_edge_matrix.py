"""The rows of the edge's faults: each is carried out by a test that is there, told in the docs, and could fail."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.faults.edge_matrix import EDGE_MATRIX, EdgeFault, Within, alerts_table, by_key, faults_table, misses

ROOT = Path(__file__).parents[2]
ROW = EdgeFault("k", "a fault", "done so", (), refused=0, lost=True, back=Within(5, "asked again within {}"))


@cache
def functions_of(path: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((ROOT / path).read_text())
    return {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}


@pytest.mark.parametrize("fault", EDGE_MATRIX, ids=lambda fault: fault.key)
def test_a_row_is_carried_out_by_tests_that_take_its_words_and_bounds(fault: EdgeFault) -> None:
    assert fault.refusal or fault.bound
    assert fault.tests
    for test in fault.tests:
        path, _, name = test.partition("::")
        named = [node.value for node in ast.walk(functions_of(path)[name]) if isinstance(node, ast.Constant)]
        assert fault.key in named, f"{test} does not name {fault.key}"


def test_keys_and_titles_are_of_one_row_each() -> None:
    assert len({fault.key for fault in EDGE_MATRIX}) == len({fault.title for fault in EDGE_MATRIX}) == len(EDGE_MATRIX)


@pytest.mark.parametrize(("page", "table"), [("edge.md", faults_table), ("monitoring.md", alerts_table)])
def test_the_docs_have_the_rows(page: str, table: object) -> None:
    text = (ROOT / "docs" / page).read_text()
    shown = re.search(r"<!-- edge faults -->\n\n(.*?)\n<!-- /edge faults -->", text, re.DOTALL)
    assert shown is not None
    assert shown[1] == table()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("counts", "back", "words"),
    [
        ({"done": 9, "lost": 4}, 5, []),
        ({"done": 9, "refused": 1}, 1, ["1 refused, bound 0"]),
        ({"done": 9, "unreached": 2}, 1, ["2 refused, bound 0"]),
        ({"done": 9, "lost": 5}, 1, ["5 lost, 4 open there"]),
        ({"done": 9}, 5.1, ["asked again within 5 s: 5.1 s"]),
        ({"done": 9}, None, ["back was not seen"]),
        ({}, 1, ["no request was answered"]),
    ],
)
def test_what_breaks_a_bound_is_named(counts: dict[str, int], back: float | None, words: list[str]) -> None:
    assert misses(ROW, Counter(counts), open_there=4, back=back) == words


def test_where_nothing_may_be_lost_nothing_is() -> None:
    assert misses(replace(ROW, lost=False), {"done": 1, "lost": 1}, open_there=4, back=1) == ["1 lost, 0 open there"]


def test_a_refusal_is_known_by_its_words_in_their_order() -> None:
    fault = by_key("keys-torn-twice")
    assert fault.says("a is torn (b),\nand so is c; HAProxy goes on with the keys that it has loaded; fix")
    assert not fault.says("a is torn; HAProxy goes on with the keys that it has loaded, and so is c")
    assert not replace(fault, refusal="").says("anything")
    assert by_key("no-engine").answer == (503, "no_engine")
