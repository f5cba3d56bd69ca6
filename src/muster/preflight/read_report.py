"""The host programs' JSON as a report. Nothing in it is trusted: whatever it holds, a report comes out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from muster.preflight import filters, smi, tool_text
from muster.preflight.filters import Filters
from muster.preflight.host_report import (
    NOT_ASKED,
    Clock,
    FabricManager,
    GpuDirect,
    HostReport,
    Installed,
    Listener,
    PathFacts,
    RdmaPort,
    System,
)
from muster.preflight.tool_text import Unreadable
from muster.spec import versions


def from_answers(host: str, answers: Mapping[str, Any], sent: float, received: float) -> HostReport:
    """Build a report from what the host programs answered.

    Args:
        host: inventory name.
        answers: program name -> answer (`probe_gpus`, `probe_machine`, `probe_engine`).
        sent, received: this machine's wall clock before and after the session, in seconds.

    What cannot be read is `Unreadable` in the report.
    """
    names, machine = _value(answers, "probe_gpus", "names"), _value(answers, "probe_machine", "clock")
    engine = answers.get("probe_engine")
    engine = engine if isinstance(engine, Mapping) else {"error": "not asked"}
    files = engine.get("files")
    return HostReport(
        host=host,
        gpus=smi.gpus(_value(answers, "probe_gpus", "gpus")),
        apps=smi.apps(_value(answers, "probe_gpus", "apps")),
        remapped=smi.remapped(_value(answers, "probe_gpus", "remapped")),
        nvlinks=smi.nvlinks(_value(answers, "probe_gpus", "nvlink")),
        topology=smi.topology(_value(answers, "probe_gpus", "topology")),
        driver_log=tool_text.driver_log(_value(answers, "probe_gpus", "driver_log")),
        fabric_manager=_fabric_manager(_value(answers, "probe_gpus", "fabric_manager")),
        rdma=_rdma(_value(answers, "probe_machine", "infiniband")),
        gpudirect=_gpudirect(_value(answers, "probe_machine", "gpudirect")),
        links=tool_text.links(_value(answers, "probe_gpus", "links")),
        filters=_filters(answers.get("probe_firewall")),
        systemd=_systemd(_value(answers, "probe_gpus", "systemd")),
        hostname=_text(names, "hostname"),
        resolves=_resolves(names),
        system=_system(_value(answers, "probe_machine", "system")),
        paths=_paths(_value(answers, "probe_machine", "paths")),
        listeners=_listeners(_value(answers, "probe_machine", "listening")),
        units=_units(_value(answers, "probe_machine", "units")),
        clock=_clock(_value(answers, "probe_gpus", "started"), machine, sent, received),
        installed=_installed(engine),
        files={
            str(path): digest if isinstance(digest, str) else None
            for path, digest in (files.items() if isinstance(files, Mapping) else ())
        },
        revision=_text(engine, "revision") or None,
        digest=_text(engine, "digest") or None,
    )


def _filters(answer: object) -> Filters | Unreadable:
    return filters.read(answer) if isinstance(answer, Mapping) else NOT_ASKED


def _value(answers: Mapping[str, Any], program: str, source: str) -> Mapping[str, Any]:
    """Return one source's value, or `{"error": ...}`."""
    answer = answers.get(program)
    if not isinstance(answer, Mapping):
        return {"error": "the host's program gave no answer"}
    answered = answer.get(source, answer if "error" in answer else None)
    if isinstance(answered, Mapping):
        value = answered.get("value", answered)
        if isinstance(value, Mapping):
            return value
    return {"error": f"{source}: no answer"}


def _error(value: Mapping[str, Any]) -> Unreadable | None:
    return Unreadable(str(value["error"])[:300]) if "error" in value else None


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    return text.strip()[:4096] if isinstance(text, str) else ""


def _number(value: Mapping[str, Any], key: str) -> int | None:
    number = value.get(key)
    if isinstance(number, str) and number.strip().isascii() and number.strip()[:18].isdigit():
        return int(number.strip()[:18])
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _list(value: Mapping[str, Any], key: str) -> list[Any]:
    items = value.get(key)
    return items[:4096] if isinstance(items, list) else []


def _items(value: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return [item for item in _list(value, key) if isinstance(item, Mapping)]


def _fabric_manager(value: Mapping[str, Any]) -> FabricManager | Unreadable:
    shown = tool_text.command_text(value.get("unit", value), "systemctl")
    if isinstance(shown, Unreadable):
        return shown
    unit = tool_text.properties(shown)
    if "LoadState" not in unit:
        return Unreadable(f"systemctl printed: {tool_text.first_line(shown) or 'nothing'}")
    printed = tool_text.command_text(value.get("version"), "nv-fabricmanager")
    version = "" if isinstance(printed, Unreadable) else versions.version_text(printed)
    return FabricManager(unit["LoadState"], unit.get("ActiveState", ""), version)


def _rdma(value: Mapping[str, Any]) -> tuple[RdmaPort, ...] | Unreadable:
    return _error(value) or tuple(
        RdmaPort(
            device=_text(port, "device"),
            port=_text(port, "port"),
            # "4: ACTIVE" and "5: LinkUp" in /sys; the number is the kernel's own.
            state=_text(port, "state").rpartition(": ")[2],
            physical=_text(port, "phys_state").rpartition(": ")[2],
            layer=_text(port, "link_layer"),
            gid_types=tuple(str(kind).strip() for kind in _list(port, "gid_types")),
        )
        for port in _items(value, "ports")
    )


def _gpudirect(value: Mapping[str, Any]) -> GpuDirect | Unreadable:
    modules = value.get("modules")
    return _error(value) or GpuDirect(
        modules=tuple(str(name) for name in modules) if isinstance(modules, list) else (),
        driver=_text(value, "driver"),
        kernel=versions.version(_text(value, "kernel")),
    )


def _systemd(value: Mapping[str, Any]) -> int | Unreadable:
    shown = tool_text.command_text(value.get("version", value), "systemctl")
    if isinstance(shown, Unreadable):
        return shown
    match = re.match(r"systemd (\d{1,6})\b", shown)
    if match is None:
        return Unreadable(f"systemctl printed: {tool_text.first_line(shown) or 'nothing'}")
    return int(match.group(1)) if value.get("booted") else Unreadable("the host was not booted with systemd")


def _resolves(value: Mapping[str, Any]) -> tuple[str, ...] | Unreadable:
    answer = value.get("own", value)
    if isinstance(answer, Mapping) and answer.get("rc") == 2:
        return ()  # getent: the name is not known
    shown = tool_text.command_text(answer, "getent")
    if isinstance(shown, Unreadable):
        return shown
    return tuple(dict.fromkeys(line.split()[0] for line in shown.splitlines() if line.split()))


def _system(value: Mapping[str, Any]) -> System | Unreadable:
    memory = tool_text.meminfo(_text(value, "meminfo"))
    return _error(value) or System(
        os=tool_text.properties(_text(value, "os_release")).get("PRETTY_NAME", ""),
        libc=_text(value, "libc"),
        machine=_text(value, "machine"),
        kernel=_text(value, "kernel"),
        python=_text(value, "python"),
        memory=memory.get("MemTotal"),
        shm=_number(value, "shm_bytes"),
        pid_max=_number(value, "pid_max"),
        nr_open=_number(value, "nr_open"),
        uid=_number(value, "uid"),
    )


def _paths(value: Mapping[str, Any]) -> dict[str, PathFacts | Unreadable]:
    if "error" in value:
        return {}
    paths: dict[str, PathFacts | Unreadable] = {}
    for path, facts in value.items():
        if not isinstance(facts, Mapping):
            continue
        free = _number(facts, "free")
        if free is None:
            paths[str(path)] = _error(facts) or Unreadable("no figures")
            continue
        paths[str(path)] = PathFacts(
            mount=_text(facts, "mount"),
            options=tuple(_text(facts, "options").split(",")),
            device=_number(facts, "device") or 0,
            free=free,
            held=_number(facts, "held") or 0,
        )
    return paths


def _listeners(value: Mapping[str, Any]) -> tuple[Listener, ...] | Unreadable:
    return _error(value) or tuple(
        Listener(_number(one, "port") or 0, _text(one, "process"), _number(one, "pid"), _text(one, "cgroup"))
        for one in _items(value, "ports")
    )


def _units(value: Mapping[str, Any]) -> tuple[str, ...] | Unreadable:
    return _error(value) or tuple(str(name) for name in _list(value, "running") if name)


def _clock(first: Mapping[str, Any], last: Mapping[str, Any], sent: float, received: float) -> Clock | Unreadable:
    started, ended = _seconds(first), _seconds(last)
    if ended is None:
        return _error(last) or Unreadable("no clock")
    return Clock(ended if started is None else started, ended, sent, received)


def _seconds(value: Mapping[str, Any]) -> float | None:
    wall = value.get("wall")
    return float(wall) if isinstance(wall, (int, float)) and not isinstance(wall, bool) else None


def _installed(value: Mapping[str, Any]) -> Installed | Unreadable | None:
    if "error" in value:
        return _error(value)
    release = value.get("release")
    if not isinstance(release, Mapping):
        return None
    versions, source = release.get("versions"), value.get("imported")
    imported: Mapping[str, Any] | Unreadable = NOT_ASKED
    if isinstance(source, Mapping):
        answer = source.get("value")
        imported = answer if isinstance(answer, Mapping) else Unreadable(str(source.get("error", "no answer"))[:300])
    return Installed(
        versions={str(k): str(v) for k, v in versions.items()} if isinstance(versions, Mapping) else {},
        cuda=_text(release, "cuda") or None,
        python=_text(release, "python") or None,
        imported=imported,
    )
