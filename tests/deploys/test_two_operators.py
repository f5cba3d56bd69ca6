"""Two control machines deploy different settings to the same three hosts at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from muster.sandbox import Sandbox
from tests.deploys.conftest import GuardedTestbed
from tests.deploys.test_changes import record

pytestmark = [pytest.mark.sandbox, pytest.mark.nightly]


@pytest.fixture
def box(three: Sandbox) -> Sandbox:
    return three


@pytest.mark.parametrize("apart", [0.0, 0.7, 3.0])
def test_of_two_operators_at_once_one_changes_the_group(guarded: GuardedTestbed, tmp_path: Path, apart: float) -> None:
    (tmp_path / "other").mkdir()
    other = GuardedTestbed(guarded.box, tmp_path / "other")
    seats = {guarded: 51 + int(10 * apart), other: 52 + int(10 * apart)}
    children = {}
    for operator in (guarded, other):
        children[operator] = operator.start("kimi_k2_instruct", "-y", max_num_seqs=seats[operator], supervisor="guard")
        time.sleep(apart if operator is guarded else 0)
    texts = {operator: "".join(child.communicate(timeout=250)) for operator, child in children.items()}
    statuses = {operator: child.returncode for operator, child in children.items()}
    assert sorted(statuses.values()) == [0, 2], texts
    won, lost = sorted(children, key=lambda operator: statuses[operator])
    assert "has been changing group" in texts[lost] or "another change has come in between" in texts[lost]
    assert guarded.answers()
    for name in guarded.hosts:
        assert f"--max-num-seqs {seats[won]}" in guarded.command_line(name)
        assert record(guarded, name) == {}
