"""Clocks of the hosts against each other, as precisely as the probe's round trip allows."""

from __future__ import annotations

from collections.abc import Sequence

from muster.preflight.host_report import Clock, HostReport
from muster.preflight.verdict import Level, Verdict

# A second apart confuses logs and health checks; a minute breaks certificates and tokens.
WARN_SECONDS = 1.0
FAIL_SECONDS = 60.0
FIX = "enable time synchronisation: timedatectl set-ntp true, or chrony; see chronyc tracking"


def verdicts(reports: Sequence[HostReport]) -> tuple[Verdict, ...]:
    """Return a verdict on each host's clock.

    A clock is read at some moment between sending the probe and its answer, so an offset is an interval; two clocks
    differ for certain by the gap between their intervals. The reference is the median host; of two hosts, the one
    whose clock is nearer to this machine's.
    """
    clocks = {report.host: report.clock for report in reports if isinstance(report.clock, Clock)}
    if len(clocks) < 2:
        return ()
    middles = {host: sum(clock.offset) / 2 for host, clock in clocks.items()}
    by_offset = sorted(middles, key=lambda host: (middles[host], host))
    reference = by_offset[len(by_offset) // 2]
    if len(by_offset) == 2:
        reference = min(by_offset, key=lambda host: abs(middles[host]))
    return tuple(_verdict(host, clock, reference, clocks[reference]) for host, clock in clocks.items())


def _verdict(host: str, clock: Clock, reference: str, other: Clock) -> Verdict:
    (low, high), (other_low, other_high) = clock.offset, other.offset
    certain = max(low - other_high, other_low - high, 0.0)
    apart = sum(clock.offset) / 2 - sum(other.offset) / 2
    if certain <= WARN_SECONDS:
        within = max(high - other_low, other_high - low)
        return Verdict("host.clock", "ok", f"within {max(within, 0.001):.3f} s of {reference}", host=host)
    level: Level = "fail" if certain > FAIL_SECONDS else "warn"
    way = "ahead of" if apart > 0 else "behind"
    found = f"{_span(abs(apart))} {way} {reference}"
    return Verdict("host.clock", level, found, "clocks within 1 s", FIX, host)


def _span(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.1f} s"
