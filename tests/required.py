"""What a machine lacks for a test: the test is skipped, or fails where the environment asks for everything."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(what: str, variable: str = "MUSTER_REQUIRE_SANDBOX") -> NoReturn:
    """Skip a test, or fail it where a variable of the environment is 1.

    Args:
        what: why it cannot run here, in words.
        variable: that asks for what is lacking.
    """
    if os.environ.get(variable) == "1":
        pytest.fail(f"{variable}=1, but {what}")
    pytest.skip(what)
