"""Take servers of the edge out of HAProxy's choice for as long as the control machine is there.

They come back when that says so, and when this session ends, however it ends: then the guards' `/ready` alone decides.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from muster.on_host import edge_places, haproxy_socket, session_lines
from muster.on_host.move_servers import standing_for

Json = dict[str, Any]
Rows = dict[str, dict[str, str]]

_OUT = 0x01 | 0x08
"""Bits of srv_admin_state (HAProxy's management guide): set to maintenance, set to drain."""


def main(request: Json) -> Json:
    """Name servers that are out, have them back, or hold them out.

    Args:
        request: `servers` [backend/server], all of each group, as planned; `do`: `read`, `ready`, or `hold`, with
            `silence`: seconds without a line after which they come back, and `stays`, where they are not taken out but
            looked at. `socket` where it is not the distribution's.

    Returns:
        {drained, up, alone}: those that are out, those that answer, and the backends in which no other server is up.

    With `hold` the first line out is {running, alone}: whether HAProxy runs, and those backends; where there is one,
    nothing is taken out. Lines in: {do: "alive"}; {do: "count"}: {in_flight}; {do: "cut"}: end what is in
    flight; {do: "back"}: the servers are back; {do: "up"}: {down: those that HAProxy does not take for up}.
    """
    servers, runtime = list(request["servers"]), str(request.get("socket") or edge_places.SOCKET)
    if request["do"] == "hold":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        _hold(servers, runtime, float(request["silence"]), stays=bool(request.get("stays")))
        return {}
    rows = _rows(runtime)
    known = [*standing_for(servers, rows)]
    if request["do"] == "ready":
        _set(known, runtime, "ready")
        rows = _rows(runtime)
    return {
        "drained": _out(known, runtime),
        "up": [name for name in known if rows[name]["status"].startswith(("DRAIN", "UP"))],
        "alone": _alone(known, rows),
    }


def _hold(servers: list[str], runtime: str, silence: float, *, stays: bool) -> None:
    rows = _rows(runtime)
    known = [*standing_for(servers, rows)]
    alone = _alone(known, rows)
    try:
        if not alone and not stays:
            _set(known, runtime, "drain")
        session_lines.say({"running": bool(rows), "alone": alone})
        for line in session_lines.lines(silence):
            session_lines.say(_obey(line["do"], known, runtime))
    finally:
        _set(known, runtime, "ready")


def _obey(do: str, servers: list[str], runtime: str) -> Json:
    try:
        if do == "count":
            rows = _rows(runtime)
            return {"in_flight": sum(int(rows.get(name, {}).get("scur") or 0) for name in servers)}
        if do == "cut":
            for name in servers:
                haproxy_socket.ask(runtime, f"shutdown sessions server {name}")
        if do == "back":
            _set(servers, runtime, "ready")
        if do == "up":
            rows = _rows(runtime)
            return {"down": [name for name in servers if name in rows and not rows[name]["status"].startswith("UP")]}
    except OSError as error:
        return {"error": str(error)}
    return {}


def _set(servers: list[str], runtime: str, state: str) -> None:
    for name in servers:
        haproxy_socket.ask(runtime, f"set server {name} state {state}")


def _out(servers: list[str], runtime: str) -> list[str]:
    """Return those that are held out; the statistics show one that is down as down, held out or not."""
    states = haproxy_socket.server_states(runtime)
    return [name for name in servers if int(states.get(name, {}).get("srv_admin_state") or 0) & _OUT]


def _alone(known: list[str], rows: Rows) -> list[str]:
    carried = {_backend(name) for name in rows if _carries(name, rows, known)}
    return sorted({_backend(name) for name in known} - carried)


def _backend(server: str) -> str:
    return server.split("/")[0]


def _carries(name: str, rows: Rows, leaving: list[str]) -> bool:
    return name not in leaving and rows[name]["status"].startswith("UP")


def _rows(runtime: str) -> Rows:
    """Return backend/server -> what HAProxy shows of it; nothing where none runs."""
    return {
        f"{row['pxname']}/{row['svname']}": row
        for row in haproxy_socket.statistics(runtime)
        if row.get("svname") not in ("FRONTEND", "BACKEND", None)
    }
