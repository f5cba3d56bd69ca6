"""Units as `systemctl show` prints them."""

from __future__ import annotations

import pytest

from muster.on_host import run_command, systemd_units

SHOWN = """\
Id=a.service
LoadState=loaded
ActiveState=active
Description=x=y
NRestarts=2
MainPID=0

Id=b.service
LoadState=not-found
ActiveState=inactive
NRestarts=
"""


def test_every_unit_has_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_command, "must", lambda argv: SHOWN)
    shown = systemd_units.show(["a.service", "b.service"], "Description")
    assert shown["a.service"]["Description"] == "x=y"
    states = systemd_units.states(["a.service", "b.service"])
    assert [(unit["active"], unit["restarts"], unit["digest"]) for unit in states.values()] == [
        ("active", 2, None),
        ("inactive", 0, None),
    ]


def test_no_unit_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_command, "must", lambda argv: 1 / 0)
    assert systemd_units.show([], "Description") == {}
