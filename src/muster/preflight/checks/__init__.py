"""Checks of one host: `(report, needs) -> verdicts`, pure, one module per subject: driver, gpus, gpu_memory, fabric,
fabric_manager, rdma, host_system, installed_engine,
network_filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from muster.hosts.explain import explain
from muster.preflight.checks import (
    driver,
    fabric,
    fabric_manager,
    gpu_memory,
    gpus,
    host_system,
    installed_engine,
    network_filters,
    rdma,
)
from muster.preflight.chosen_gpus import reduced
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.verdict import Verdict, ok

SUBJECTS: tuple[Callable[[HostReport, Needs], Iterator[Verdict]], ...] = (
    driver.check,
    installed_engine.check,
    fabric_manager.check,
    gpus.check,
    gpu_memory.check,
    rdma.check,
    fabric.check,
    host_system.check,
    network_filters.check,
)


def local(report: HostReport, needs: Needs) -> tuple[Verdict, ...]:
    """Compare one host's report with the plan's needs; verdicts come in the catalogue's order.

    A host that was not reached gets one failing verdict.
    """
    if report.unreached is not None:
        return (not_reached(report.host, report.unreached),)
    report = reduced(report, needs)
    verdicts = [ok("host.reached", "answers")]
    for subject in SUBJECTS:
        verdicts.extend(subject(report, needs))
    return tuple(replace(verdict, host=report.host) for verdict in verdicts)


def not_reached(host: str, why: str) -> Verdict:
    """Return the verdict on a host that did not answer."""
    told = explain(host, why)
    return Verdict("host.reached", "fail", told.found, told.needed, told.fix, host)
