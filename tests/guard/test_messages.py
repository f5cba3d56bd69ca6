"""Messages as they travel: whatever a process printed, the report that carries it fits a frame and is accepted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.guard import messages
from muster.guard.messages import Failure, Report, View

from .test_protocol import cut, pair


def report(failure: Failure, **change: str) -> Report:
    return Report("h1", "g", "plan-1", "0.32.0", "i", 1, failure=failure, **change)  # type: ignore[arg-type]


def travels(sent: Report) -> Report:
    """The report as the head reads it."""
    member, head = pair()
    message = head.open(*cut(member.seal({"kind": "report", "report": messages.to_wire(sent)})))
    return messages.report_from(message["report"])


@pytest.mark.parametrize("letter", ["a", "é", "\x1b", "𝄞", '"'], ids=["ascii", "latin", "escape", "wide", "quote"])
def test_a_failure_reaches_the_head_whatever_its_log_holds(letter: str) -> None:
    lines = letter * 60_000 + " the last words"
    texts = {"blocked": letter * 5000, "detail": letter * 5000, "previous": letter * 5000}
    received = travels(report(Failure("h1", letter * 5000, lines=lines), **texts))
    assert received.failure is not None
    assert received.failure.lines.endswith(" the last words")
    assert received.failure.reason.startswith(letter)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=3000), st.text(max_size=300), st.integers(1, 60))
def test_any_text_fits_a_frame(lines: str, reason: str, times: int) -> None:
    received = travels(report(Failure("h1", reason * times, lines=lines * times), detail=reason * times))
    assert received.failure is not None
    assert (lines * times).endswith(received.failure.lines)


@given(st.text(max_size=200), st.integers(0, 300), st.booleans())
def test_a_cut_is_the_longest_that_fits(text: str, size: int, keep_end: bool) -> None:
    part = messages.cut_to_encoded(text, size, keep_end)
    assert text.endswith(part) if keep_end else text.startswith(part)
    assert len(json.dumps(part)) - 2 <= size
    if part != text:
        longer = text[-len(part) - 1 :] if keep_end else text[: len(part) + 1]
        assert len(json.dumps(longer)) - 2 > size


def test_a_view_is_cut_too() -> None:
    view = messages.to_wire(View("i", 1, "g1", "abort", "𝄞" * 5000))
    assert messages.view_from(view).reason.startswith("𝄞")


def test_loaders_travel_and_their_texts_have_bounds() -> None:
    sent = Report("h1", "g", "plan-1", "0.33.0", "i", 1, loads="auto=91.2 instanttensor=24")
    assert travels(sent) == sent
    view = View("i", 1, "g1", "run", loader="instanttensor")
    assert messages.view_from(messages.to_wire(view)) == view
    for change in ({"loads": 1}, {"loads": "x" * 257}, {"loads": None}):
        with pytest.raises(ValueError, match="loads is out of bounds"):
            messages.report_from({**messages.to_wire(sent), **change})
    for change in ({"loader": 1}, {"loader": "x" * 257}):
        with pytest.raises(ValueError, match="loader is out of bounds"):
            messages.view_from({**messages.to_wire(view), **change})
