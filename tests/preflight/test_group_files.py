"""A differing guard key, a masked unit and a file that is not whole have their words, and nobody else's."""

from __future__ import annotations

from typing import Any

from muster.on_host.startable import MASKED
from muster.preflight import group_files

KEY = "/etc/muster/g/guard-key"


def answer(key: str = "a", lacks: tuple[str, ...] = (), plans: tuple[str, ...] = ("/u",)) -> dict[str, Any]:
    return {
        "secrets": {KEY: {"kind": "file", "sha256": key}},
        "startable": {"lacks": list(lacks), "plans": dict.fromkeys(plans, "d")},
    }


def found(**seen: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(each.check, each.level, each.host) for each in group_files.verdicts("g", seen)]


def test_a_group_as_it_should_be_and_hosts_it_has_never_been_on() -> None:
    assert found(a=answer(), b=answer(), c=answer("", ("no unit of group g is there",), ())) == []


def test_the_one_host_with_another_key_is_named_and_of_two_both() -> None:
    assert found(a=answer(), b=answer("b"), c=answer()) == [("group.key", "warn", "b")]
    assert found(a=answer(), b=answer("b")) == [("group.key", "warn", "a"), ("group.key", "warn", "b")]


def test_a_masked_unit_fails_and_what_a_deploy_mends_warns() -> None:
    masked, cut = (f"muster-g.service {MASKED}",), ("/etc/muster/g/guard.json is not whole",)
    assert found(a=answer(lacks=masked, plans=()), b=answer(lacks=cut)) == [
        ("group.unit", "fail", "a"),
        ("group.files", "warn", "b"),
    ]
