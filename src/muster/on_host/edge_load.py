"""How many requests of each backend run or wait at the HAProxy of an edge host."""

from __future__ import annotations

from typing import Any

from muster.on_host import edge_places, haproxy_socket

Json = dict[str, Any]


def main(request: Json) -> Json:
    """Count requests.

    Args:
        request: `socket` where it is not the distribution's.

    Returns:
        {running, asked}: whether HAProxy runs, and backend -> requests that run or wait.
    """
    rows = haproxy_socket.statistics(str(request.get("socket") or edge_places.SOCKET))
    asked = {row["pxname"]: int(row["scur"] or 0) for row in rows if row.get("svname") == "BACKEND"}
    return {"running": bool(rows), "asked": asked}
