"""What several tests of the guard share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from muster.guard.cgroup import Fence


@pytest.fixture
def mark() -> Iterator[str]:
    """An instance id; processes that still carry it at the end are killed."""
    name = os.urandom(8).hex()
    yield name
    asyncio.run(Fence("", name).kill(10))
