"""One end of a measurement between two hosts: reachability, round trip, throughput, unfragmented packets.

A host program: standard library only, Python 3.9 or newer. The server takes one connection that sends the token, and
ends; nothing stays behind.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from muster.on_host import run_command

Json = dict[str, Any]

PINGS = 64
MESSAGE = 64
BLOCK = 256 * 1024
# Seconds without a byte after which a transfer counts as stalled.
STALL = 5.0
# Bytes that an echo request adds to its payload: IP and ICMP headers.
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}


def family(address: str) -> socket.AddressFamily:
    """Return the address family of a literal address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def receive(connection: socket.socket, count: int) -> bytes:
    """Return exactly so many bytes.

    Raises:
        ConnectionError: the peer closed before.
    """
    data = b""
    while len(data) < count:
        chunk = connection.recv(count - len(data))
        if not chunk:
            raise ConnectionError("the peer closed the connection")
        data += chunk
    return data


def serve(request: Json) -> Json:
    """Take one measurement from the caller that knows the token."""
    token = request["token"].encode()
    deadline = time.monotonic() + request["wait"] + request["seconds"] + 4.0
    with socket.socket(family(request["address"]), socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((request["address"], request["port"]))
        listener.listen(4)
        while time.monotonic() < deadline:
            listener.settimeout(max(0.1, deadline - time.monotonic()))
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(max(0.1, min(4.0, deadline - time.monotonic())))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    if receive(connection, len(token)) != token:
                        continue
                except OSError:
                    continue
                for _ in range(PINGS):
                    connection.sendall(receive(connection, MESSAGE))
                return take(connection, request["seconds"])
    return {"error": "no caller came"}


def take(connection: socket.socket, seconds: float) -> Json:
    """Receive until the end and report how much arrived; a transfer that stalls is an answer too."""
    connection.settimeout(seconds + STALL)
    total = 0
    try:
        while True:
            chunk = connection.recv(BLOCK)
            if not chunk:
                break
            total += len(chunk)
        connection.sendall(b"%20d" % total)
    except OSError as error:
        return {"bytes": total, "stalled": str(error)}
    return {"bytes": total}


def connect(request: Json) -> socket.socket:
    """Connect to the peer from the fabric address, trying again until it listens.

    Raises:
        OSError: it did not answer in time.
    """
    deadline = time.monotonic() + request["wait"]
    while True:
        try:
            return socket.create_connection(
                (request["peer"], request["port"]), timeout=4.0, source_address=(request["address"], 0)
            )
        except ConnectionRefusedError:
            # Refused: the host answers, its server is not up yet. Any other error is about the network.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def call(request: Json) -> Json:
    """Measure the connection to the peer."""
    answer: Json = {"packet": request["packet"]}
    with connect(request) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(request["wait"])
        connection.sendall(request["token"].encode())
        trips = []
        for _ in range(PINGS):
            before = time.perf_counter()
            connection.sendall(b"." * MESSAGE)
            receive(connection, MESSAGE)
            trips.append(time.perf_counter() - before)
        answer["round_trip"] = sorted(trips)[len(trips) // 2]
        # A path that loses full packets carries the round trips and then stalls; the ping below shows why.
        try:
            answer["bits"] = push(connection, request["seconds"])
        except OSError as error:
            answer["stalled"] = str(error) or type(error).__name__
    answer["ping"] = ping(request) if request["packet"] else None
    return answer


def push(connection: socket.socket, seconds: float) -> float:
    """Send for some seconds and return the bits per second that arrived.

    Raises:
        OSError: the transfer stalled.
    """
    connection.settimeout(STALL)
    block = bytes(BLOCK)
    before = time.perf_counter()
    while time.perf_counter() - before < seconds:
        connection.sendall(block)
    connection.shutdown(socket.SHUT_WR)
    arrived = int(receive(connection, 20))
    return arrived * 8 / (time.perf_counter() - before)


def ping(request: Json) -> Json:
    """Send full packets that must not be fragmented."""
    payload = request["packet"] - HEADERS[family(request["peer"])]
    argv = ["ping", "-n", "-q", "-M", "do", "-s", str(payload), "-c", "3", "-i", "0.2", "-W", "1"]
    try:
        done = run_command.finish([*argv, "-I", request["address"], request["peer"]], 6.0)
    except FileNotFoundError:
        return {"missing": True}
    except TimeoutError:
        return {"arrived": False, "complaint": "no answer"}
    lines = (done.errors + done.output).strip().splitlines()
    loss = next((line.strip() for line in lines if "packet loss" in line), "")
    complaint = next((line for line in lines if "too long" in line), loss)
    # Packets may be lost by chance; one of three that arrives shows that the size passes.
    return {"arrived": done.status == 0, "complaint": complaint[:200]}


ROLES = {"serve": serve, "call": call}


def main(request: Json) -> Json:
    """Be one end of a measurement.

    Args:
        request: `role` (`serve`, `call`), `address` (own, on the fabric), `peer`, `port`, `token`, `packet`
            (bytes with headers, 0 for no ping), `seconds` of throughput, `wait` (seconds for the peer to come).
    """
    try:
        return ROLES[request["role"]](request)
    except OSError as error:
        return {"error": str(error) or type(error).__name__}
