"""The outcome of a group's preflight: verdicts of all hosts, waivers, and the notes above the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from muster.errors import Refusal
from muster.plan import cuda_variants
from muster.plan.cuda_variants import Variant
from muster.preflight import clocks, pairs, parity
from muster.preflight.catalogue import CHECKS
from muster.preflight.checks import local
from muster.preflight.chosen_gpus import reduced
from muster.preflight.filters import Filters
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.pairs import Measured
from muster.preflight.parity import ParityRow
from muster.preflight.verdict import Level, Verdict, worst

# Distinct for scripts; 2 is every command line's status for wrong arguments.
EXIT_STATUS: dict[Level, int] = {"ok": 0, "warn": 3, "fail": 1}
_PLACE = {name: place for place, name in enumerate(CHECKS)}


@dataclass(frozen=True)
class Outcome:
    """The result of a preflight.

    Args:
        title: what was checked, in words.
        hosts: in inventory order.
        verdicts: of all checks and hosts.
        rows: the parity table.
        waived: names of checks that stop nothing.
        notes: lines above the table: the CUDA variant chosen, the slowest pair.
    """

    title: str
    hosts: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    rows: tuple[ParityRow, ...] = ()
    waived: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def level(self) -> Level:
        """The worst level that counts."""
        return worst(self.verdicts)

    @property
    def exit_status(self) -> int:
        """0 when all is well, 3 when something warns, 1 when something fails."""
        return EXIT_STATUS[self.level]

    def failures(self) -> tuple[Verdict, ...]:
        """Return what stops a deploy."""
        return tuple(verdict for verdict in self.verdicts if verdict.counts_as == "fail")

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "title": self.title,
            "level": self.level,
            "hosts": list(self.hosts),
            "waived": list(self.waived),
            "notes": list(self.notes),
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
            "parity": [{**asdict(row), "values": dict(row.values)} for row in self.rows],
        }


def judge_group(
    title: str,
    reports: Sequence[HostReport],
    needs: Mapping[str, Needs],
    *,
    waived: Iterable[str] = (),
    measured: Sequence[Measured] = (),
    more: Iterable[Verdict] = (),
    notes: Iterable[str] = (),
    running: bool = False,
) -> Outcome:
    """Judge a whole group.

    Args:
        title: what was checked, in words.
        reports: of all hosts, reached or not, in inventory order.
        needs: by host.
        waived: names of checks that stop nothing.
        measured: results of pairs; empty where none measured.
        more: further verdicts (NCCL, drift).
        notes: further lines to show.
        running: whether the group runs: then firewalls let its hosts through.
    """
    variant = group_variant(reports, needs)
    if isinstance(variant, Variant):
        needs = {host: replace(need, cuda_variant=variant.name) for host, need in needs.items()}
    rows = parity.compare([reduced(report, needs[report.host]) for report in reports])
    verdicts = [verdict for report in reports for verdict in local(report, needs[report.host])]
    verdicts += clocks.verdicts(reports)
    verdicts += _fabric(reports, needs, measured)
    verdicts += parity.verdicts(rows)
    verdicts += more
    verdicts = _explained(verdicts, reports, measured, running=running)
    names = frozenset(waived)
    slowest = pairs.slowest(measured)
    lines = [_variant_note(variant, reports, needs), *notes, *([slowest] if slowest else [])]
    return Outcome(
        title,
        tuple(report.host for report in reports),
        tuple(sorted((_waive(v, names) for v in verdicts), key=lambda v: _PLACE.get(v.check, len(_PLACE)))),
        rows,
        tuple(waived),
        tuple(line for line in lines if line),
    )


def _waive(verdict: Verdict, names: frozenset[str]) -> Verdict:
    return replace(verdict, waived=verdict.check in names and verdict.level != "ok")


def _fabric(
    reports: Sequence[HostReport], needs: Mapping[str, Needs], measured: Sequence[Measured]
) -> tuple[Verdict, ...]:
    """Return the fabric's verdicts; where interfaces differ in MTU, the lost packets are not reported again."""
    local_mtus = pairs.mtu_verdicts(pairs.mtus(reports, needs))
    by_pairs = pairs.verdicts(measured)
    judged = {verdict.host for verdict in by_pairs if verdict.check == "fabric.mtu"}
    odd = {verdict.host for verdict in local_mtus if verdict.level != "ok"}
    kept = tuple(verdict for verdict in local_mtus if verdict.host in odd or verdict.host not in judged)
    return kept + tuple(v for v in by_pairs if v.check != "fabric.mtu" or v.host not in odd)


def _explained(
    verdicts: list[Verdict], reports: Sequence[HostReport], measured: Sequence[Measured], *, running: bool
) -> list[Verdict]:
    """Let the meeting on the fabric decide about firewalls: one that lets peers through passes, else it is named."""
    met = {host: True for result in measured for host in result.hosts}
    for result in measured:
        if result.error is not None:
            met |= dict.fromkeys(result.hosts, False)
    foreign = {
        report.host: report.filters.foreign
        for report in reports
        if isinstance(report.filters, Filters) and isinstance(report.filters.foreign, tuple) and report.filters.foreign
    }
    explained = []
    for verdict in verdicts:
        if verdict.check == "host.firewall" and verdict.level == "warn" and met.get(verdict.host, running):
            verdict = replace(verdict, level="ok", found=f"{verdict.found}: lets the group's hosts through", fix="")
        elif verdict.check == "fabric.reach" and verdict.level == "fail":
            near = {verdict.host, *(h for r in measured if r.error and verdict.host in r.hosts for h in r.hosts)}
            walls = [f"{host} has {one}" for host in sorted(near) for one in foreign.get(host, ())[:2]]
            if walls:
                fixes = dict.fromkeys(one.fix for host in sorted(near) for one in foreign.get(host, ()))
                fix = f"{pairs.OPEN_PORTS}: {'; '.join(list(fixes)[:3])}"
                verdict = replace(verdict, found=f"{verdict.found}; {', '.join(walls[:4])}", fix=fix)
        explained.append(verdict)
    return explained


def drivers_of(reports: Iterable[HostReport]) -> dict[str, str | None]:
    """Return host -> driver version, of the hosts that name one."""
    return {report.host: report.driver for report in reports if report.driver}


def group_variant(reports: Sequence[HostReport], needs: Mapping[str, Needs]) -> Variant | Refusal | None:
    """Return the CUDA variant that all hosts run; None when there is nothing to choose from."""
    drivers, some = drivers_of(reports), next(iter(needs.values()), None)
    if not drivers or some is None or not some.vllm or some.torch_backend is None:
        return None
    try:
        return cuda_variants.choose_for(drivers, vllm=some.vllm, requested=some.torch_backend)
    except Refusal as refusal:
        return refusal


def _variant_note(variant: Variant | Refusal | None, reports: Sequence[HostReport], needs: Mapping[str, Needs]) -> str:
    """Say which variant of the engine the group gets, and which host's driver decides that."""
    if isinstance(variant, Refusal):
        return f"engine build: none fits ({variant.found}; needed: {variant.needed})"
    if variant is None:
        return ""
    if any(need.torch_backend != "auto" for need in needs.values()):
        return f"engine build: {variant.name}, as the settings say"
    drivers = drivers_of(reports)
    oldest = cuda_variants.oldest(drivers)
    return f"engine build: {variant.name} (CUDA {variant.cuda}), for driver {drivers[oldest]} on {oldest}"
