"""What the tests of the host programs share."""

from __future__ import annotations

import pytest

from muster.on_host import run_unprivileged


@pytest.fixture
def as_myself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an engine's Python as the user of the tests, who may be root: here is no systemd to confine it."""
    monkeypatch.setattr(run_unprivileged, "privileged", lambda: False)
