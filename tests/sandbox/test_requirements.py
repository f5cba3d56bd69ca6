from __future__ import annotations

import platform

import pytest

from muster.errors import Refusal
from muster.sandbox import requirements


def test_missing_commands_are_named_by_their_package() -> None:
    there = {"ip", "nsenter", "mount", "ssh-keygen"}
    assert requirements.packages(lambda command: command if command in there else None) == [
        "debootstrap",
        "nftables",
        "systemd-container",
    ]


def test_another_system_is_told_what_works_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(Refusal, match=r"(?s)Linux \(this is Darwin\).*muster plan"):
        requirements.check()


def test_everything_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(requirements, "packages", lambda: ["debootstrap"])
    with pytest.raises(Refusal, match=r"(?s)root .*sudo.*debootstrap.*apt-get install -y debootstrap"):
        requirements.check()
