"""Which ports of other hosts answer from here: a connection, or its refusal, proves that no filter is in between."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Json = dict[str, Any]

_AT_ONCE = 64


def main(request: Json) -> Json:
    """Try to connect to ports.

    Args:
        request: `ports` {name: [address, port]}, and `patience`, seconds for each.

    Returns:
        {unreached}: name -> why.
    """
    ports, patience = request["ports"], float(request["patience"])

    def attempt(name: str) -> str:
        address, port = ports[name]
        try:
            socket.create_connection((address, port), patience).close()
        except ConnectionRefusedError:
            return ""
        except OSError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {"unreached": {name: why for name, why in zip(ports, pool.map(attempt, ports)) if why}}
