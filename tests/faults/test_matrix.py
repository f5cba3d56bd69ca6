"""The fault matrix on two real systemd hosts with the stand-in engine: bounds and oracles of each row.

The bounds are the only times asserted; they are the matrix's own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Boot
from tests.faults.group import Group
from tests.faults.matrix import MATRIX, PASS, Fault, cells, misses, verdict
from tests.faults.rows import carry_out

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def group(sandbox: Boot) -> Iterator[Group]:
    """Return one group, deployed once; each row leaves it serving to the next."""
    with Group(sandbox("faults", 2)) as there:
        there.deploy()
        yield there


@pytest.fixture
def serving(group: Group) -> Group:
    """Return the group, serving."""
    group.restore_service()
    return group


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.key, marks=[] if fault.essential else [pytest.mark.nightly])
        for fault in MATRIX
        if fault.effect != ("elsewhere",)
    ],
)
def test_row(serving: Group, fault: Fault) -> None:
    outcome = carry_out(serving, fault)
    print(" | ".join(cells(outcome)))
    if outcome.not_run:
        pytest.skip(outcome.not_run)
    assert misses(outcome) == []
    assert verdict(outcome) == PASS
