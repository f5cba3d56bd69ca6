"""A host's report reduced to the GPUs that the group uses there; the others are no business of its checks. Pure."""

from __future__ import annotations

from dataclasses import replace

from muster.guard import host_judge
from muster.guard.host_judge import Finding
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.tool_text import Unreadable


def reduced(report: HostReport, needs: Needs) -> HostReport:
    """Return the report with the chosen GPUs alone: in the list, in processes, row remaps, NVLink and topology.

    The GPUs left out become its `unused`.
    """
    if isinstance(report.gpus, Unreadable) or not needs.gpus:
        return report
    devices = [gpu.device for gpu in report.gpus]
    chosen = {id(each) for each in host_judge.choose(devices, needs.gpus, needs.devices)[0]}
    used = tuple(gpu for gpu, each in zip(report.gpus, devices, strict=True) if id(each) in chosen)
    unused = tuple(gpu for gpu, each in zip(report.gpus, devices, strict=True) if id(each) not in chosen)
    if not unused:
        return report
    indices, uuids = {gpu.index for gpu in used}, {gpu.uuid for gpu in unused}
    apps, remapped, nvlinks, topology = report.apps, report.remapped, report.nvlinks, report.topology
    if not isinstance(apps, Unreadable):
        apps = tuple(app for app in apps if app.gpu not in uuids)
    if not isinstance(remapped, Unreadable):
        remapped = {uuid: state for uuid, state in remapped.items() if uuid not in uuids}
    if not isinstance(nvlinks, Unreadable):
        nvlinks = {index: links for index, links in nvlinks.items() if index in indices}
    if not isinstance(topology, Unreadable):
        topology = {pair: how for pair, how in topology.items() if indices.issuperset(pair)}
    return replace(report, gpus=used, unused=unused, apps=apps, remapped=remapped, nvlinks=nvlinks, topology=topology)


def count(report: HostReport, needs: Needs) -> Finding:
    """Judge whether the GPUs that the group uses are all there."""
    gpus = () if isinstance(report.gpus, Unreadable) else report.gpus
    return host_judge.choose([gpu.device for gpu in (*gpus, *report.unused)], needs.gpus, needs.devices)[1]
