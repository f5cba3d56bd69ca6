"""A fleet that is rolled, for the files that roll it."""

from __future__ import annotations

import pytest

from tests.conftest import Boot
from tests.edge.rolled import LAYOUT, Rolled


@pytest.fixture(scope="module")
def rolled(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Rolled:
    """Two groups and an edge, on hosts of their own."""
    there = Rolled(sandbox("edge", 3), tmp_path_factory.mktemp("rolled"), LAYOUT)
    there.bring_up()
    return there


@pytest.fixture(scope="module")
def client(rolled: Rolled) -> str:
    """A key without limits."""
    return rolled.new_key("roller")
