"""The control protocol's bytes: what is taken, what is not, and what a frame is good for."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.guard import messages, protocol
from muster.guard.messages import Failure, Report, View
from muster.guard.protocol import ProtocolError, Session

KEY = b"k" * 32
ONE, TWO = "1" * 32, "2" * 32


def pair(key: bytes = KEY, member_nonce: str = ONE) -> tuple[Session, Session]:
    return Session(KEY, "g", ONE, TWO, "member"), Session(key, "g", member_nonce, TWO, "head")


def cut(frame: bytes) -> tuple[bytes, bytes]:
    assert protocol.frame_length(frame[:4]) == len(frame) - 4 - protocol.CODE
    return frame[4 : 4 + protocol.CODE], frame[4 + protocol.CODE :]


def test_first_lines() -> None:
    assert protocol.hello("g", ONE) == b"MUSTER/1 g 11111111111111111111111111111111\n"
    assert protocol.read_hello(protocol.hello("g", ONE), "g") == ONE
    assert protocol.read_answer(protocol.answer(TWO)) == TWO


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not a muster guard"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "not a muster guard"),
        (b"MUSTER/1 g " + b"1" * 31 + b"\n", "not a muster guard"),
        (b"MUSTER/1 g " + b"1" * 32 + b"\r\n", "not a muster guard"),
        (b"MUSTER/2 g " + b"1" * 32 + b"\n", "the peer speaks version 2, this guard version 1: deploy both hosts"),
        (b"MUSTER/1 other " + b"1" * 32 + b"\n", "this is the head of group g, not of other"),
    ],
)
def test_other_first_lines_are_refused_with_the_reason(line: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as error:
        protocol.read_hello(line, "g")
    assert str(error.value) == reason
    with pytest.raises(ProtocolError) as error:
        protocol.read_answer(protocol.refused(reason))
    assert str(error.value) == f"the head refused: {reason}"


@given(st.binary(max_size=300))
def test_any_bytes_are_a_refusal_and_no_other_error(line: bytes) -> None:
    for read in (lambda: protocol.read_hello(line, "g"), lambda: protocol.read_answer(line)):
        with pytest.raises(ProtocolError):
            read()
    session = pair()[1]
    with pytest.raises(ProtocolError):
        session.open(line[:32], line[32:])


@given(st.dictionaries(st.text(), st.text()))
def test_what_is_sealed_is_opened_in_order(message: dict[str, str]) -> None:
    member, head = pair()
    for _ in range(3):
        assert head.open(*cut(member.seal(message))) == message
        assert member.open(*cut(head.seal(message))) == message


def test_a_frame_is_worth_nothing_elsewhere() -> None:
    member, head = pair()
    first, second = member.seal({"n": 1}), member.seal({"n": 2})
    worthless = {
        "out of order": (pair()[1], second),
        "sent back": (Session(KEY, "g", ONE, TWO, "member"), first),
        "in another session": (pair(member_nonce=TWO)[1], first),
        "in another group": (Session(KEY, "h", ONE, TWO, "head"), first),
        "with another key": (pair(key=b"x" * 32)[1], first),
        "changed": (pair()[1], first[:-1] + b"]"),
    }
    for session, frame in worthless.values():
        with pytest.raises(ProtocolError):
            session.open(*cut(frame))
    assert head.open(*cut(first)) == {"n": 1}
    with pytest.raises(ProtocolError):
        head.open(*cut(first))


@pytest.mark.parametrize("length", [0, 1, protocol.FRAME_LIMIT + 1, 2**32 - 1])
def test_a_frame_out_of_bounds_is_not_even_read(length: int) -> None:
    with pytest.raises(ProtocolError):
        protocol.frame_length(protocol.HEADER.pack(length))


def test_no_message_is_larger_than_a_frame() -> None:
    text = "\x00" * messages.TEXT_LIMIT  # six bytes each in JSON
    with pytest.raises(ValueError, match="does not fit"):
        pair()[0].seal({"text": text})


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b"{", b"[" * 60_000, b"\xff\xfe"])
def test_a_proved_peer_that_sends_nonsense_ends_its_session(body: bytes) -> None:
    member, head = pair()
    code = member._code(b"m", 0, body)
    with pytest.raises(ProtocolError):
        head.open(code, body)


def test_a_short_key_is_no_key() -> None:
    assert protocol.read_key(f" {'a' * 32}\n") == b"a" * 32
    with pytest.raises(ProtocolError, match="the guard key has 0 characters, needed 32"):
        protocol.read_key("\n")


REPORT = Report("a", "g", "d", "e", "i", 1, failure=Failure("a", "r"))


def test_messages_survive_the_wire() -> None:
    assert messages.report_from(json.loads(json.dumps(messages.to_wire(REPORT)))) == REPORT
    view = View("i", 1, "g", "run", "x")
    assert messages.view_from(json.loads(json.dumps(messages.to_wire(view)))) == view


@pytest.mark.parametrize(
    "change",
    [
        {"seq": -1},
        {"seq": True},
        {"seq": "1"},
        {"host": 1},
        {"host": "x" * 257},
        {"child": "maybe"},
        {"leaving": 1},
        {"failure": []},
        {"failure": {"host": "a"}},
        {"failure": {**messages.to_wire(REPORT)["failure"], "lines": "x" * 20_000}},
        {"failure": {**messages.to_wire(REPORT)["failure"], "at": float("nan")}},
        {"more": 1},
    ],
)
def test_a_report_of_other_shape_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        messages.report_from({**messages.to_wire(REPORT), **change})


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(messages.to_wire(REPORT))), json_like)
def test_a_report_with_any_value_is_a_report_or_a_value_error(name: str, value: object) -> None:
    with contextlib.suppress(ValueError):
        messages.report_from({**messages.to_wire(REPORT), name: value})
