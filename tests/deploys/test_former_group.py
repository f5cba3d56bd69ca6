"""Which former group a run replaces, and which it refuses to: nothing is stopped that has ranks elsewhere."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from muster.deploys.former_group import may_return, require_all_here, require_whole
from muster.deploys.shared import group_run
from muster.deploys.shared.stop_question import rename_question
from muster.errors import Refusal
from muster.plan.change import Change, Command, Found


def there(*hosts: str, count: int) -> dict[str, dict[str, Any]]:
    return {name: {"groups": {"old": {"hosts": count}, "other": {"hosts": 9}}} for name in hosts}


def seen(*hosts: str, record: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    return {name: {"changes": {"old": {"record": record or {}}}} for name in hosts}


def test_a_group_whose_hosts_are_all_here_is_replaced() -> None:
    require_all_here("old", there("a", "b", count=2), seen("a", "b"), {})


def test_hosts_that_its_guards_know_are_named() -> None:
    with pytest.raises(Refusal) as refusal:
        require_all_here("old", there("a", count=2), seen("a"), {"b": "192.0.2.2"})
    assert refusal.value.found == "former_group old: b (192.0.2.2) not among the hosts of this run"


def test_hosts_that_nobody_knows_are_counted() -> None:
    with pytest.raises(Refusal) as refusal:
        require_all_here("old", there("a", "b", count=4), seen("a", "b"), {})
    assert refusal.value.found == "former_group old: 2 of its 4 hosts not among the hosts of this run"


def test_a_removal_that_was_cut_goes_on_with_what_is_left() -> None:
    require_all_here("old", there("a", count=2), seen("a", record={"command": "remove"}), {})


def test_a_group_is_found_by_its_plan_or_by_what_a_cut_removal_left() -> None:
    answers: dict[str, dict[str, Any]] = {
        "a": {"groups": {"old": {}}, "changes": {"new": {}}},
        "b": {"groups": {}, "changes": {"new": {}, "old": {}}},
        "c": {"groups": {"other": {}}, "changes": {"new": {}}},
    }
    assert group_run.having("old", "new", answers) == ("a", "b")
    assert group_run.having(None, "new", answers) == ()
    assert group_run.having("new", "new", answers) == ()  # its own name is no other group


def test_the_question_names_what_is_stopped_and_taken_away() -> None:
    asked = rename_question("old", "new", ["a", "b"], 30)
    assert asked.startswith(
        "old on a, b will be stopped: requests in flight get up to 30 s, then nothing answers until "
    )
    assert asked.endswith("new is ready; then old is taken away: its units, files, keys and state")
    assert "requests in flight are cut off" in rename_question("old", "new", ["a"], 0)


def cut(command: Command, exchanging: str) -> dict[str, Found]:
    """What hosts show of a change that was cut in its exchange of files, on the second one."""
    change = Change("1", "old", command, "ann", "desk", "2026-11-27T01:02:03Z", "aaa", "bbb").at("committing")
    return {"a": Found(record=change), "b": Found(record=dataclasses.replace(change, exchanging=exchanging))}


def test_a_former_group_whose_files_are_mixed_is_not_replaced() -> None:
    with pytest.raises(Refusal) as refusal:
        require_whole("old", cut("deploy", "yes"))
    assert refusal.value.found == "a, b: a change of group old, the former_group, was cut while files were exchanged"
    require_whole("old", cut("deploy", ""))
    require_whole("old", cut("remove", ""))
    require_whole("old", {"a": Found(installed="aaa")})


def test_the_former_group_comes_back_while_nothing_of_the_new_one_is_or_will_be_in_place() -> None:
    assert may_return({"a": Found(), "b": Found()})
    assert may_return(cut("deploy", ""))
    assert not may_return({"a": Found(), "b": Found(installed="bbb")})
    assert not may_return(cut("deploy", "yes"))
