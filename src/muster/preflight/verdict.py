"""A verdict: what a check found on a host, what is needed, and the fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from muster.guard.host_judge import Finding

Level = Literal["ok", "warn", "fail"]
ORDER: dict[Level, int] = {"ok": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True)
class Verdict:
    """One check's judgement.

    Args:
        check: stable name, one of `catalogue.CHECKS`.
        level: ok, warn or fail.
        found: what is there.
        needed: by this plan.
        fix: a command or a setting.
        host: inventory name; for a verdict about a pair, the host that measured.
        waived: `preflight_waive` names the check; the verdict is shown and stops nothing.
    """

    check: str
    level: Level
    found: str
    needed: str = ""
    fix: str = ""
    host: str = ""
    waived: bool = False

    @property
    def counts_as(self) -> Level:
        """The level after waivers."""
        return "ok" if self.waived else self.level


def ok(check: str, found: str, needed: str = "") -> Verdict:
    """Return a verdict that all is well."""
    return Verdict(check, "ok", found, needed)


def warn(check: str, found: str, needed: str, fix: str) -> Verdict:
    """Return a verdict that serving works, but not as it should."""
    return Verdict(check, "warn", found, needed, fix)


def fail(check: str, found: str, needed: str, fix: str) -> Verdict:
    """Return a verdict that serving would not work."""
    return Verdict(check, "fail", found, needed, fix)


def of_finding(finding: Finding) -> Verdict:
    """Return the verdict of the judge that the guard shares."""
    return Verdict(finding.check, cast("Level", finding.level), finding.found, finding.needed, finding.fix)


def worst(verdicts: Iterable[Verdict]) -> Level:
    """Return the worst level that counts; ok when there is none."""
    return max((verdict.counts_as for verdict in verdicts), key=ORDER.__getitem__, default="ok")
