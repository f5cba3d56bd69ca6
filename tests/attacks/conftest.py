"""The hosts and groups that the deploys' tests use, for attacks on them."""

from __future__ import annotations

from tests.deploys.conftest import box, guarded, serving, testbed

__all__ = ["box", "guarded", "serving", "testbed"]
