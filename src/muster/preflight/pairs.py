"""Every host with every other on the fabric: the schedule of measurements, and verdicts on the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from muster.preflight.checks.fabric import link_of
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict

Pair = tuple[str, str]

OPEN_PORTS = "let the group's own hosts reach all TCP ports of each other (docs/preflight.md, Ports between hosts)"

SLOW_ROUND_TRIP = 0.002
SLOW_BITS = 1e9
ODD_FACTOR = 5.0
ODD_SHARE = 0.5


@dataclass(frozen=True)
class Measured:
    """What one pair measured.

    Args:
        caller, server: hosts.
        error: why there is no connection, None when there is one.
        round_trip: median of the TCP ping-pong, in seconds.
        bits: throughput of one TCP stream, in bits per second.
        packet: size of the do-not-fragment packet, in bytes with headers (0: not tried).
        fragments: why that packet did not arrive, None when it did; Unreadable when ping is not installed.
    """

    caller: str
    server: str
    error: str | None = None
    round_trip: float | None = None
    bits: float | None = None
    packet: int = 0
    fragments: str | Unreadable | None = None

    @property
    def hosts(self) -> frozenset[str]:
        """The two hosts."""
        return frozenset((self.caller, self.server))


def rounds(hosts: Sequence[str]) -> list[list[Pair]]:
    """Return a schedule in which each two hosts meet once and no host is in two pairs of a round.

    Args:
        hosts: names; N of them take N - 1 rounds (N when N is odd).

    The circle method: one host stays, the others move on by one place each round.
    """
    names: list[str | None] = list(hosts)
    if len(names) % 2:
        names.append(None)
    schedule = []
    for _ in range(len(names) - 1):
        half = len(names) // 2
        meetings = zip(names[:half], reversed(names[half:]), strict=True)
        schedule.append([(a, b) for a, b in meetings if a is not None and b is not None])
        names[1:] = [names[-1], *names[1:-1]]
    return schedule


def requests(pair: Pair, needs: Mapping[str, Needs], mtus: Mapping[str, int], port: int, token: str) -> dict[str, Any]:
    """Return the request of `measure_pair` for each of the two hosts.

    Args:
        pair: caller, server.
        needs: by host; their addresses are used.
        mtus: MTU of each host's fabric interface in bytes.
        port: TCP port of the server.
        token: sent by the peer; a connection without it is a stranger's.
    """
    caller, server = pair
    # On a busy host the peer's program may start some seconds later.
    common = {"port": port, "token": token, "seconds": 0.5, "wait": 12.0}
    mine, other = needs[caller].address, needs[server].address
    packet = min(mtus.get(caller, 0), mtus.get(server, 0))
    return {
        caller: {**common, "role": "call", "address": mine, "peer": other, "packet": packet},
        server: {**common, "role": "serve", "address": other},
    }


def measured(pair: Pair, answers: Mapping[str, Mapping[str, Any]]) -> Measured:
    """Read the answers of both ends of a pair; whatever they hold, a result comes out.

    Args:
        pair: caller, server.
        answers: host -> answer of its `measure_pair`, or `{"error": ...}`.
    """
    caller, server = pair
    called, served = answers.get(caller, {}), answers.get(server, {})
    round_trip, bits, packet = (called.get(name) for name in ("round_trip", "bits", "packet"))
    fragments, error = fragments_of(called), called.get("error")
    if error is None and not isinstance(round_trip, (int, float)):
        error = served.get("error") or "no answer"
    if error is None and "stalled" in called and not isinstance(fragments, str):
        error = f"connects, but data stalls: {called['stalled']}"
    return Measured(
        caller,
        server,
        error=None if error is None else str(error)[:300],
        round_trip=float(round_trip) if isinstance(round_trip, (int, float)) else None,
        bits=float(bits) if isinstance(bits, (int, float)) else None,
        packet=packet if isinstance(packet, int) else 0,
        fragments=fragments,
    )


def fragments_of(answer: Mapping[str, Any]) -> str | Unreadable | None:
    """Return why full packets did not arrive, from an answer's `ping`; None when they did or were not tried."""
    ping = answer.get("ping")
    if not isinstance(ping, Mapping) or ping.get("arrived"):
        return None
    if ping.get("missing"):
        return Unreadable("ping is not installed")
    return str(ping.get("complaint") or "no answer")[:200]


def mtus(reports: Iterable[HostReport], needs: Mapping[str, Needs]) -> dict[str, int]:
    """Return the MTU of the interface that carries each host's fabric address, where there is one."""
    links = {report.host: link_of(report, needs[report.host].address) for report in reports}
    return {host: link.mtu for host, link in links.items() if link}


def mtu_verdicts(sizes: Mapping[str, int]) -> tuple[Verdict, ...]:
    """Judge the interfaces' MTUs: where they differ, large packets are lost."""
    if len(sizes) < 2:
        return ()
    values = list(sizes.values())
    # Of two hosts the larger MTU is the intended one: 1500 is the default.
    usual = max(set(values), key=lambda size: (values.count(size), size))
    return tuple(
        Verdict("fabric.mtu", "ok", str(size), host=host)
        if size == usual
        else Verdict(
            "fabric.mtu",
            "fail",
            str(size),
            f"{usual}, as on the other hosts",
            f"ip link set mtu {usual} on the fabric interface, and in its configuration",
            host,
        )
        for host, size in sizes.items()
    )


def verdicts(results: Sequence[Measured]) -> tuple[Verdict, ...]:
    """Judge each host by its worst pair, in four checks."""
    hosts = sorted({host for result in results for host in result.hosts})
    good = [result for result in results if result.error is None]
    trips = [r.round_trip for r in good if r.round_trip is not None]
    usual_trip = median(trips) if trips else 0.0
    speeds = [r.bits for r in good if r.bits is not None]
    usual_bits = median(speeds) if speeds else 0.0
    judged: list[Verdict] = []
    for host in hosts:
        mine = [result for result in results if host in result.hosts]
        judged.append(_reach(host, mine))
        judged.extend(_packets(host, mine))
        up = [result for result in mine if result.error is None]
        if any(result.round_trip is not None for result in up):
            judged.append(_round_trip(host, up, usual_trip))
            judged.append(_throughput(host, up, usual_bits))
    return tuple(judged)


def slowest(results: Sequence[Measured]) -> str | None:
    """Name the slowest pair, in words."""
    timed = [result for result in results if result.bits is not None]
    if not timed:
        return None
    worst = min(timed, key=lambda result: result.bits or 0.0)
    usual = median(result.bits or 0.0 for result in timed)
    return (
        f"slowest pair: {worst.caller} to {worst.server}, {_bits(worst.bits)},"
        f" round trip {_time(worst.round_trip)}; median {_bits(usual)}"
    )


def _peer(host: str, result: Measured) -> str:
    return result.server if host == result.caller else result.caller


def _reach(host: str, mine: list[Measured]) -> Verdict:
    broken = [result for result in mine if result.error is not None]
    if not broken:
        return Verdict("fabric.reach", "ok", f"reaches {len(mine)} of {len(mine)}", host=host)
    found = "; ".join(f"{_peer(host, result)}: {result.error}" for result in broken[:4])
    fix = f"{OPEN_PORTS}; check routes (ip route get PEER)"
    return Verdict("fabric.reach", "fail", found, f"a connection to all {len(mine)}", fix, host)


def _packets(host: str, mine: list[Measured]) -> list[Verdict]:
    lost = [result for result in mine if isinstance(result.fragments, str) and result.error is None]
    if lost:
        found = "; ".join(f"{r.packet} bytes to {_peer(host, r)}: {r.fragments}" for r in lost[:3])
        fix = "set one MTU on the interfaces and on the switch ports between them"
        return [Verdict("fabric.mtu", "fail", found, "full packets arrive unfragmented", fix, host)]
    unknown = [result.fragments for result in mine if isinstance(result.fragments, Unreadable)]
    if unknown:
        fix = "install iputils-ping (iputils on RHEL)"
        return [Verdict("fabric.mtu", "warn", unknown[0].why, "a do-not-fragment ping", fix, host)]
    return []


def _round_trip(host: str, up: list[Measured], usual: float) -> Verdict:
    worst = max(up, key=lambda result: result.round_trip or 0.0)
    found = f"{_time(worst.round_trip)} to {_peer(host, worst)}"
    trip = worst.round_trip or 0.0
    if trip <= SLOW_ROUND_TRIP and (trip <= ODD_FACTOR * usual or trip < SLOW_ROUND_TRIP / 4):
        return Verdict("fabric.round_trip", "ok", found, host=host)
    fix = "see whether the fabric address is on the fast network (ip route get PEER), and the switch between"
    return Verdict("fabric.round_trip", "warn", found, f"under 2 ms and near {_time(usual)}", fix, host)


def _throughput(host: str, up: list[Measured], usual: float) -> Verdict:
    worst = min(up, key=lambda result: result.bits or 0.0)
    found = f"{'stalled' if worst.bits is None else _bits(worst.bits)} to {_peer(host, worst)}"
    if (worst.bits or 0.0) >= max(SLOW_BITS, ODD_SHARE * usual):
        return Verdict("fabric.throughput", "ok", found, host=host)
    fix = "see the link's speed (ethtool IFACE), errors (ip -s link), and whether it is the fast network"
    return Verdict("fabric.throughput", "warn", found, f"1 Gbit/s, and near {_bits(usual)}", fix, host)


def _time(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def _bits(bits: float | None) -> str:
    return "unknown" if bits is None else f"{bits / 1e9:.2f} Gbit/s"
