"""The history of a group: merged from its hosts, and what a change or a rollback goes back to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.plan import plan_history
from muster.plan.plan_history import KeptPlan, history
from muster.plan.way_back import WayBack, failed, way_back

HOSTS = ("a", "b")
FIRST, SECOND, THIRD = "1" * 16, "2" * 16, "3" * 16


def header(digest: str, number: int, **more: Any) -> dict[str, Any]:
    usual = {"hosts": HOSTS, "release": {"id": "r", "path": "/r"}, "verified": "2026-11-26T10:00:00Z", "by": "ann@c"}
    return {"digest": digest, "number": number, **usual, "drain_seconds": 30, "seconds": {"start": 60.0}, **more}


def on_all(*headers: dict[str, Any]) -> tuple[KeptPlan, ...]:
    return history(dict.fromkeys(HOSTS, headers))


def test_hosts_keep_one_history_newest_first() -> None:
    plans = history({"a": [header(SECOND, 2), header(FIRST, 1)], "b": [header(SECOND, 2)]})
    assert [(plan.digest, plan.on, plan.lacking) for plan in plans] == [(SECOND, HOSTS, ()), (FIRST, ("a",), ("b",))]
    assert history({}) == history({"a": []}) == ()


def test_a_change_goes_back_to_what_was_verified_last() -> None:
    plans = on_all(header(FIRST, 1), header(SECOND, 2))
    back = way_back(plans, HOSTS, THIRD)
    assert back.plan is not None
    assert (back.plan.digest, back.why) == (SECOND, "")
    # An older plan, deployed again, has what was verified after it to go back to.
    again = way_back(plans, HOSTS, FIRST).plan
    assert again is not None
    assert again.digest == SECOND


@pytest.mark.parametrize(
    ("plans", "hosts", "why"),
    [
        ((), HOSTS, "the hosts keep no plan that was verified before"),
        (on_all(header(THIRD, 1)), HOSTS, f"plan {THIRD} is itself the one that was verified last"),
        (on_all(header(FIRST, 1)), ("a", "c"), f"plan {FIRST}, verified last, ran on a, b"),
        (history({"a": [header(FIRST, 1)], "b": []}), HOSTS, f"b: no copy of plan {FIRST}, which was verified last"),
        (
            on_all(header(FIRST, 1, version=2)),
            HOSTS,
            f"plan {FIRST} is kept in form 2, by another muster; this one reads form 1",
        ),
    ],
    ids=["nothing kept", "the same plan", "other hosts", "a copy is gone", "another form"],
)
def test_why_there_is_no_way_back(plans: tuple[KeptPlan, ...], hosts: tuple[str, ...], why: str) -> None:
    assert way_back(plans, hosts, THIRD) == WayBack(None, why)


def test_a_plan_that_another_muster_keeps_in_its_own_form_is_not_put_back() -> None:
    with pytest.raises(Refusal) as refused:
        plan_history.choose(on_all(header(FIRST, 1, version=2)), HOSTS, SECOND)
    assert refused.value.found == f"plan {FIRST} is kept in form 2, by another muster; this one reads form 1"
    assert "roll back with the muster that kept it" in str(refused.value)


def test_both_are_said_what_failed_and_what_serves() -> None:
    back, reason = way_back(on_all(header(FIRST, 1)), HOSTS, THIRD), "b: vllm ended with 1"
    assert FIRST in back.announcement
    assert failed(THIRD, reason, back, "", 41.6) == (
        f"plan {THIRD} failed: {reason}; plan {FIRST} serves again after 42 s without service"
    )
    assert failed(THIRD, reason, back, "", None).endswith(f"plan {FIRST} serves again")
    assert "could not be put back: a: gone; the group does not serve" in failed(THIRD, reason, back, "a: gone", 3)
    kept = way_back(on_all(header(FIRST, 1)), HOSTS, THIRD, keep_failed=True)
    assert failed(THIRD, reason, kept, "", 3).endswith("it was left as it is: keep_failed is set")


def test_a_rollback_takes_the_newest_that_is_not_there_or_the_one_that_is_named() -> None:
    plans = on_all(header(FIRST, 1), header(SECOND, 2), header(THIRD, 3))
    assert plan_history.choose(plans, HOSTS, THIRD).digest == SECOND
    assert plan_history.choose(plans, HOSTS, "").digest == THIRD
    assert plan_history.choose(plans, HOSTS, THIRD, "11").digest == FIRST


@pytest.mark.parametrize(
    ("plans", "hosts", "given_digest", "says"),
    [
        ((), HOSTS, "", "kept plans: none"),
        (on_all(header(THIRD, 1)), HOSTS, "", "a verified plan besides the one on them"),
        (on_all(header(THIRD, 1)), HOSTS, "33", f"plan {THIRD} is the one on the hosts"),
        (on_all(header(FIRST, 1)), HOSTS, "9", "one plan whose digest begins with 9"),
        (on_all(header(FIRST, 1), header("12345678", 2)), HOSTS, "1", "one plan whose digest begins with 1"),
        (history({"a": [header(FIRST, 1)], "b": []}), HOSTS, "", f"b: no copy of plan {FIRST}"),
        (on_all(header(FIRST, 1)), ("a",), "", f"plan {FIRST} ran on a, b; this run has a"),
    ],
    ids=["nothing kept", "only what runs", "what runs", "unknown", "two begin so", "a copy is gone", "other hosts"],
)
def test_a_rollback_that_cannot_be(
    plans: tuple[KeptPlan, ...], hosts: tuple[str, ...], given_digest: str, says: str
) -> None:
    with pytest.raises(Refusal) as refused:
        plan_history.choose(plans, hosts, THIRD, given_digest)
    assert says in str(refused.value)


def test_seconds_without_service_are_said_before() -> None:
    plans = on_all(header(FIRST, 1, seconds={"start": 50.4}), header(SECOND, 2, seconds={}), header("4" * 16, 3))
    assert plan_history.last_start(plans, FIRST) == 50.4
    assert plan_history.last_start(plans, THIRD) == 60.0
    said = "without service for up to 60 s: 10 s to drain, 50 s to start"
    assert plan_history.expected(plans, FIRST, 10) == said
    assert plan_history.expected((), THIRD, 30).endswith("which was not measured on these hosts yet")


KEPT = st.dictionaries(
    st.sampled_from(HOSTS), st.lists(st.builds(header, st.sampled_from((FIRST, SECOND, THIRD)), st.integers(1, 9)))
)


@given(KEPT, st.sampled_from((FIRST, SECOND, THIRD)))
def test_every_way_back_is_whole_and_was_verified_last(kept: dict[str, list[dict[str, Any]]], planned: str) -> None:
    plans = history(kept)
    back = way_back(plans, HOSTS, planned)
    assert (back.plan is None) == bool(back.why)
    if back.plan is not None:
        assert back.plan is plans[0]
        assert set(back.plan.on) == set(HOSTS)
        assert back.plan.digest != planned
    number = plan_history.next_number(plans, planned)
    mine = header(planned, number)
    kept_then = {name: [*(h for h in kept.get(name, ()) if h["digest"] != planned), mine] for name in HOSTS}
    assert history(kept_then)[0].digest == planned
    assert way_back(history(kept_then), HOSTS, planned).plan is None
