"""What an edge is asked for, as its HAProxy's socket says."""

from __future__ import annotations

import pytest

from muster.on_host import edge_load, haproxy_socket

TEXT = """\
# pxname,svname,qcur,scur
edge,FRONTEND,,9
kimi,a,0,4
kimi,BACKEND,3,7
clients,BACKEND,0,
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [(TEXT, {"running": True, "asked": {"kimi": 7, "clients": 0}}), (None, {"running": False, "asked": {}})],
)
def test_requests_of_each_backend_are_counted(
    monkeypatch: pytest.MonkeyPatch, text: str | None, said: dict[str, object]
) -> None:
    monkeypatch.setattr(haproxy_socket, "ask", lambda *_: text)
    assert edge_load.main({}) == said
