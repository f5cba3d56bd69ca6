"""All hosts of a group at once: which ports of each answer which peer, and whether full packets pass. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from muster.preflight.needs import Needs
from muster.preflight.pairs import Measured, fragments_of


def requests(needs: Mapping[str, Needs], mtus: Mapping[str, int], port: int, token: str) -> dict[str, Any]:
    """Return the request of `meet_peers` for each host: ports and full packets, no load.

    Args:
        needs: by host; their addresses and ports are used.
        mtus: MTU of the fabric interface in bytes, for each host that takes part.
        port: TCP port of every host.
        token: sent by peers; a connection without it is a stranger's.
    """

    def peers(host: str) -> dict[str, Any]:
        return {
            peer: {"address": needs[peer].address, "packet": min(mtus[host], size)}
            for peer, size in mtus.items()
            if peer != host
        }

    common = {"port": port, "token": token, "wait": 12.0}
    return {
        host: {**common, "address": needs[host].address, "low": list(needs[host].peer_ports), "peers": peers(host)}
        for host in mtus
    }


def results(answers: Mapping[str, Mapping[str, Any]]) -> list[Measured]:
    """Read the answers of hosts that met: one result per pair, with what went wrong at either end.

    Args:
        answers: host -> the answer of its `meet_peers` program, or `{"error": ...}`.
    """
    hosts = list(answers)
    return [_pair(a, b, answers) for place, a in enumerate(hosts) for b in hosts[place + 1 :]]


def combined(measured: Sequence[Measured], met: Sequence[Measured]) -> list[Measured]:
    """Return measurements with the failures of the meeting in them; pairs that only met are kept as they are."""
    by_hosts = {result.hosts: result for result in met}
    both = []
    for result in measured:
        other = by_hosts.pop(result.hosts, None)
        both.append(result if other is None else replace(result, error=result.error or other.error))
    return [*both, *by_hosts.values()]


def _pair(one: str, other: str, answers: Mapping[str, Mapping[str, Any]]) -> Measured:
    ends = [(one, other, _end(answers[one], other)), (other, one, _end(answers[other], one))]
    fragments = [lost for lost in (fragments_of(end) for _, _, end in ends) if lost is not None]
    errors = [str(end["error"])[:300] for _, _, end in ends if "error" in end]
    closed = [text for caller, peer, end in ends if (text := _closed(caller, peer, end))]
    packet = ends[0][2].get("packet")
    return Measured(
        one,
        other,
        error=next(iter([*errors, *closed]), None),
        packet=packet if isinstance(packet, int) else 0,
        fragments=next((lost for lost in fragments if isinstance(lost, str)), fragments[0] if fragments else None),
    )


def _end(answer: Mapping[str, Any], peer: str) -> Mapping[str, Any]:
    peers = answer.get("peers")
    end = peers.get(peer) if isinstance(peers, Mapping) else None
    return end if isinstance(end, Mapping) else {"error": answer.get("error", "no answer")}


def _closed(caller: str, peer: str, end: Mapping[str, Any]) -> str:
    """Return which kinds of a peer's ports do not answer the caller; the port of the meeting does."""
    tried = end.get("ports")
    entries = [entry for entry in tried[:64] if _is_entry(entry)] if isinstance(tried, list) else []
    parts = []
    for kind, words in (("low", "of the group's own"), ("ephemeral", "ephemeral")):
        mine = [entry for entry in entries if entry[1] == kind]
        shut = [entry for entry in mine if entry[2]]
        if shut:
            numbers = ", ".join(str(port) for port, _, _ in shut[:4])
            parts.append(f"{len(shut)} of {len(mine)} {words} ports ({numbers}): {str(shut[0][2])[:80]}")
    return f"{caller} to {peer}: {'; '.join(parts)}" if parts else ""


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], int) and isinstance(entry[2], str)
