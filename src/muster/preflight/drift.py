"""What differs from the plan since it was deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from muster.preflight import parity
from muster.preflight.checks import not_reached
from muster.preflight.chosen_gpus import reduced
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.outcome import Outcome
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict, ok, warn

DEPLOY = "run the deploy again"


def judge_drift(
    title: str, reports: Sequence[HostReport], needs: Mapping[str, Needs], more: Sequence[Verdict] = ()
) -> Outcome:
    """Compare hosts with each other and with the plan.

    Args:
        title: what is compared, in words.
        reports: of all hosts, in inventory order.
        needs: by host, with `files`, `versions` and `revision` as planned.
        more: what is wrong with the group's files besides.
    """
    rows = parity.compare([reduced(report, needs[report.host]) for report in reports])
    verdicts = [verdict for report in reports for verdict in of_host(report, needs[report.host])]
    return Outcome(title, tuple(report.host for report in reports), (*verdicts, *more, *parity.verdicts(rows)), rows)


def of_host(report: HostReport, needs: Needs) -> tuple[Verdict, ...]:
    """Return the verdicts on one host against the plan."""
    if report.unreached is not None:
        return (not_reached(report.host, report.unreached),)
    return tuple(replace(verdict, host=report.host) for verdict in _drifts(report, needs))


def _drifts(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    different = [f"{path} {_how(report, path)}" for path in needs.files if report.files.get(path) != needs.files[path]]
    if different:
        found = "; ".join(different[:6]) + (f"; {len(different) - 6} more" if len(different) > 6 else "")
        yield warn("drift.files", found, "as planned", DEPLOY)
    else:
        yield ok("drift.files", f"{len(needs.files)} files as planned")
    installed = report.installed
    if installed is None or isinstance(installed, Unreadable):
        why = "nothing installed" if installed is None else installed.why
        yield warn("drift.versions", f"{why} at {needs.release}", "the planned release", DEPLOY)
    else:
        wrong = [
            f"{name} {installed.versions.get(name, 'missing')}, planned {planned}"
            for name, planned in needs.versions.items()
            if not same_version(installed.versions.get(name), planned)
        ]
        if wrong:
            yield warn("drift.versions", "; ".join(wrong), "the planned versions", DEPLOY)
        else:
            yield ok("drift.versions", ", ".join(f"{name} {v}" for name, v in needs.versions.items()))
    if needs.revision and report.revision and report.revision != needs.revision:
        yield warn("drift.revision", report.revision, needs.revision, DEPLOY)
    else:
        yield ok("drift.revision", report.revision or "not read")


def same_version(installed: str | None, planned: str) -> bool:
    """Whether an installed version is the planned one; a local part (`+cu129`) counts only where the plan has one."""
    if installed is None:
        return False
    return installed == planned or ("+" not in planned and installed.partition("+")[0] == planned)


def _how(report: HostReport, path: str) -> str:
    return "is missing" if report.files.get(path) is None else "differs"
