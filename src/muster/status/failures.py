"""Failure bundles of several hosts, put together: which generations failed, who failed first, what each host kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from muster.hosts.printable import one_line
from muster.on_host.systemd_units import VLLM_PREFIX

Bundle = Mapping[str, Any]
_DECISIVE = re.compile(r"^(\w+\.)*\w*(Error|Exception|Exit|Fault)\b.{0,80}?: \S|^\w*Error\b")
NOTE = 2000
"""Characters of a reason that are kept as one line."""


@dataclass(frozen=True)
class Failure:
    """One generation that ended by a failure.

    Args:
        generation: that ended.
        wall: when the first bundle of it was written, by that host's clock, UTC.
        host: whose failure it was; empty where no host kept it (its disk is gone, or its guard was killed).
        reason: what failed, or the reason that the other hosts were given.
        process: the process that failed; empty for the host as a whole.
        bundles: host -> what its guard kept.
    """

    generation: str
    wall: str
    host: str
    reason: str
    process: str
    bundles: Mapping[str, Bundle]


@dataclass(frozen=True)
class Gathered:
    """What all hosts of a group kept.

    Args:
        group, digest: of the plan at hand; a bundle carries the digest that ran.
        failures: newest first.
        hosts: host -> how many bundles it gave.
        silent: host -> why it gave none.
    """

    group: str
    digest: str
    failures: tuple[Failure, ...]
    hosts: Mapping[str, int]
    silent: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return plain data: the one file that `muster logs --failure` writes."""
        return {"version": 1, **asdict(self)}


def decisive(lines: str) -> str:
    """Return the sentence of a log that says why: the last line that names an exception; empty where none does.

    Args:
        lines: the end of an engine's log.
    """
    plain = [VLLM_PREFIX.sub("", line).strip() for line in lines.splitlines()]
    return next((one_line(line, NOTE) for line in reversed(plain) if _DECISIVE.match(line[:400])), "")


def gather(group: str, digest: str, answers: Mapping[str, Mapping[str, Any]], count: int) -> Gathered:
    """Put the hosts' bundles together by generation.

    Args:
        group, digest: of the plan.
        answers: host -> what `muster.on_host.ask_guard` answered to `logs`, or {error: text}.
        count: how many failures to keep, newest first.
    """
    silent, bundles = dict[str, str](), dict[str, Sequence[Bundle]]()
    for host, reply in answers.items():
        answer = reply.get("answer") or {}
        error = reply.get("error") or answer.get("error")
        if error:
            silent[host] = str(error)
        else:
            bundles[host] = answer.get("bundles") or ()
    by_generation: dict[str, dict[str, Bundle]] = {}
    for host, kept in bundles.items():
        for bundle in kept:
            by_generation.setdefault(str(bundle.get("generation")), {}).setdefault(host, bundle)
    failures = [_failure(generation, by_host) for generation, by_host in by_generation.items()]
    newest = sorted(failures, key=lambda failure: failure.wall, reverse=True)[:count]
    return Gathered(group, digest, tuple(newest), {host: len(kept) for host, kept in bundles.items()}, silent)


def _failure(generation: str, bundles: Mapping[str, Bundle]) -> Failure:
    """The first to fail names itself; what the others say of it decides where several did at once."""
    reasons = " ".join(str(bundle.get("reason")) for bundle in bundles.values())
    failed = [host for host, bundle in bundles.items() if bundle.get("first_here")]
    host = next((name for name in failed if f"{name}: " in reasons), failed[0] if failed else "")
    own = bundles[host]["first_here"] if host else {}
    return Failure(
        generation=generation,
        wall=min(str(bundle.get("wall")) for bundle in bundles.values()),
        host=host,
        reason=one_line(str(own.get("reason") or next(iter(bundles.values())).get("reason") or ""), NOTE),
        process=one_line(str(own.get("process") or "")),
        bundles=dict(bundles),
    )
