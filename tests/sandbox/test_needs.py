from __future__ import annotations

import platform

import pytest

from muster.errors import Refusal
from muster.sandbox import needs


def test_missing_commands_are_named_by_their_package() -> None:
    there = {"ip", "nsenter", "mount", "ssh-keygen"}
    assert needs.packages(lambda command: command if command in there else None) == [
        "debootstrap",
        "nftables",
        "systemd-container",
    ]


def test_another_system_is_told_what_works_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(Refusal, match=r"(?s)Linux \(this is Darwin\).*muster plan"):
        needs.check()


def test_everything_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(needs, "packages", lambda: ["debootstrap"])
    with pytest.raises(Refusal, match=r"(?s)root .*sudo.*debootstrap.*apt-get install -y debootstrap"):
        needs.check()
