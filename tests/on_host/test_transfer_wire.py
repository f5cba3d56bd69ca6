"""Two hosts with one key understand each other, and nobody else does."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from muster.on_host import transfer_wire

KEY = b"k" * 32


def pair() -> tuple[socket.socket, socket.socket]:
    one, other = socket.socketpair()
    one.settimeout(5)
    other.settimeout(5)
    return one, other


def shake(caller: bytes, called: bytes, *, me: str = "a") -> tuple[Any, Any]:
    """Return what each side got: a wire, or the error."""
    one, other = pair()
    got: list[Any] = [None, None]

    def side(at: int, work: Any) -> None:
        try:
            got[at] = work()
        except transfer_wire.BrokenConnection as error:
            got[at] = error
            (one, other)[at].close()

    threads = [
        threading.Thread(target=side, args=(0, lambda: transfer_wire.call(one, me, "b", caller))),
        threading.Thread(target=side, args=(1, lambda: transfer_wire.answer(other, "b", {"a": called}))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return got[0], got[1]


def test_two_hosts_with_one_key_understand_each_other() -> None:
    called, (name, answered) = shake(KEY, KEY)
    called.send({"get": 3}, b"block")
    assert name == "a"
    assert answered.receive() == ({"get": 3}, b"block")
    answered.send({"data": [3, 4]})
    assert called.receive() == ({"data": [3, 4]}, b"")


@pytest.mark.parametrize(("caller", "called", "me"), [(KEY, b"x" * 32, "a"), (KEY, KEY, "stranger")])
def test_without_the_key_there_is_no_talk(caller: bytes, called: bytes, me: str) -> None:
    one, other = shake(caller, called, me=me)
    assert isinstance(one, transfer_wire.BrokenConnection)
    assert isinstance(other, transfer_wire.BrokenConnection)


@pytest.mark.parametrize("size", [transfer_wire.FRAME_LIMIT, 1 << 31])
def test_a_frame_beyond_the_limit_is_not_read(size: int) -> None:
    one, other = pair()
    one.sendall(size.to_bytes(4, "big") * 2)
    with pytest.raises(transfer_wire.BrokenConnection, match="a frame of"):
        transfer_wire.Wire(other, KEY, b"s", b"c").receive()


@pytest.mark.parametrize("at", [0, 9, 20, -1])
def test_a_changed_or_repeated_frame_is_not_believed(at: int) -> None:
    one, other = pair()
    sender = transfer_wire.Wire(one, KEY, b"c", b"s")
    tap, far = pair()
    transfer_wire.Wire(tap, KEY, b"c", b"s").send({"get": 3}, b"block")
    frame = bytearray(far.recv(4096))
    sender.send({"get": 3}, b"block")
    receiver = transfer_wire.Wire(other, KEY, b"s", b"c")
    assert receiver.receive()[0] == {"get": 3}
    one.sendall(bytes(frame))  # the same again, with a number that has been used
    with pytest.raises(transfer_wire.BrokenConnection):
        receiver.receive()
    one, other = pair()
    frame[at] ^= 1
    one.sendall(bytes(frame))
    one.close()
    with pytest.raises((transfer_wire.BrokenConnection, ValueError)):
        transfer_wire.Wire(other, KEY, b"s", b"c").receive()
