"""When a change is taken back: after it has acted on what runs, when every host of the group has failed, and once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from muster.deploys import go_back
from muster.deploys.shared.progress import Progress
from muster.errors import Refusal
from muster.hosts.run_words import words
from muster.plan.way_back import WayBack, failed_rename, way_back
from tests.plan.test_plan_history import FIRST, HOSTS, THIRD, header, on_all

BACK = way_back(on_all(header(FIRST, 1)), HOSTS, THIRD)


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests that were put back; each serves again 40 s after the stop began."""
    words.begin("i r")
    digests: list[str] = []

    def find(_state: Any, _hosts: Any, _group: str, digest: str) -> SimpleNamespace:
        digests.append(digest)
        return SimpleNamespace(deployed=SimpleNamespace(progress=SimpleNamespace(ready_at=140.0)))

    monkeypatch.setattr(go_back.put_back, "find", find)
    monkeypatch.setattr(go_back.put_back, "put_back", lambda *_: "")
    monkeypatch.setattr(go_back, "hosts_of", lambda _state: {})
    return digests


def fail(handler: go_back.GoBack, *hosts: str) -> None:
    state = SimpleNamespace(get_op_meta=lambda _: SimpleNamespace(names={"Bring up | guards up"}))
    for name in hosts:
        handler.operation_host_error(state, SimpleNamespace(name=name), "h")  # type: ignore[arg-type]


def handler(back: WayBack = BACK, **progress: Any) -> go_back.GoBack:
    known = Progress(HOSTS, (), 60)
    for name, value in progress.items():
        setattr(known, name, value)
    return go_back.GoBack("g", THIRD, known, back)


def test_the_last_host_to_fail_takes_all_of_them_back(put: list[str]) -> None:
    change = handler(stopping=100.0)
    fail(change, "b", "somebody else's")
    assert put == []
    fail(change, "a")
    assert put == [FIRST]
    failed = f"plan {THIRD} failed: b failed at 'Bring up: guards up'"
    assert words.last().startswith(f"{failed}; plan {FIRST} serves again after 40 s without service; next: ")


@pytest.mark.parametrize("progress", [{}, {"stopping": 1.0, "settled": True}], ids=["untouched", "verified"])
def test_nothing_is_taken_back_before_it_acts_and_after_it_is_proven(put: list[str], progress: dict[str, Any]) -> None:
    fail(handler(**progress), *HOSTS)
    assert put == []
    assert words.conclusion == ""


def test_why_nothing_is_put_back_is_said(put: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fail(handler(WayBack(None, "keep_failed is set"), started=1.0, failure="a: CUDA error"), *HOSTS)
    assert put == []
    assert words.conclusion == f"plan {THIRD} failed: a: CUDA error; it was left as it is: keep_failed is set"

    def lacks(*_: Any) -> Any:
        raise Refusal("b has no /etc/muster/g/guard-key")

    monkeypatch.setattr(go_back.put_back, "find", lacks)
    fail(handler(started=1.0), *HOSTS)
    problem = "could not be put back: b has no /etc/muster/g/guard-key; the group does not serve"
    assert f"plan {FIRST} {problem}" in words.conclusion


def test_where_there_is_nothing_to_go_back_to_the_former_group_serves_again(put: list[str]) -> None:
    change, asked = handler(WayBack(None, "the hosts keep no plan"), started=1.0, failure="a: CUDA error"), list[str]()

    def serve_again(_state: Any, reason: str) -> str:
        asked.append(reason)
        return failed_rename(THIRD, reason, "old", BACK, "", 40.0)

    change.former = serve_again
    fail(change, *HOSTS)
    assert (asked, put) == (["a: CUDA error"], [])
    serves = f"group old serves again with plan {FIRST} after 40 s without service"
    assert words.conclusion == f"plan {THIRD} failed: a: CUDA error; {serves}"


@pytest.mark.parametrize(
    ("back", "problem", "said"),
    [
        (BACK, "b failed at 'verify'", "group old does not serve again: b failed at 'verify'"),
        (
            WayBack(None, "keep_failed is set"),
            "keep_failed is set",
            "it was left as it is: keep_failed is set; group old is stopped, its files are in place",
        ),
    ],
)
def test_a_former_group_that_does_not_serve_again_is_said(back: WayBack, problem: str, said: str) -> None:
    assert failed_rename(THIRD, "a: died", "old", back, problem, None) == f"plan {THIRD} failed: a: died; {said}"
