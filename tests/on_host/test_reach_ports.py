"""Which ports answer: a refusal proves that no filter is in between, silence and no route do not."""

from __future__ import annotations

import socket

from muster.on_host import reach_ports
from tests.free_port import free_port


def test_a_port_is_reached_where_somebody_answers_or_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = {
            "listens": ["127.0.0.1", server.getsockname()[1]],
            "refuses": ["127.0.0.1", free_port()],
            "no such host": ["host.invalid", 1],
        }
        unreached = reach_ports.main({"ports": ports, "patience": 5})["unreached"]
    assert list(unreached) == ["no such host"]
    assert unreached["no such host"]
