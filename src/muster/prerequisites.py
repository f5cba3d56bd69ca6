"""What a host must be before anything on it is touched: found, needed, fix. Pure; one report for the whole group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from muster.decision import Observation
from muster.hardware import GIB, gpu
from muster.plan import HostPlan, Plan

MIN_SYSTEMD = 247
# A vLLM release with CUDA libraries takes about 9 GiB, and uv unpacks the largest wheel beside it; the CPU build 3.
ENGINE_BYTES = {"gpu": 14 * GIB, "cpu": 4 * GIB}


@dataclass(frozen=True)
class Problem:
    """One thing on one host that has to change first."""

    host: str
    found: str
    needed: str
    fix: str

    def __str__(self) -> str:
        return f"{self.host}: {self.found}\n    needed: {self.needed}\n    fix:    {self.fix}"


def problems(plan: Plan, seen: Mapping[str, Observation]) -> tuple[Problem, ...]:
    """Return everything on every host that speaks against this plan, hosts in the plan's order."""
    found: list[Problem] = []
    for name, host in plan.hosts.items():
        for check in (_system, _engine, _gpus, _address, _ports, _files):
            found += [Problem(name, *told) for told in check(plan, host, seen[name])]
    return tuple(found)


def report(found: tuple[Problem, ...]) -> str:
    """Return the problems as one text, for one error."""
    hosts = len({problem.host for problem in found})
    head = f"{len(found)} problem{'s' * (len(found) > 1)} on {hosts} host{'s' * (hosts > 1)}; nothing was touched"
    return "\n\n".join([head, *map(str, found)])


_Told = Iterator[tuple[str, str, str]]


def _error(value: Any) -> str:
    return str(value.get("error", "")) if isinstance(value, Mapping) else ""


def _system(_plan: Plan, _host: HostPlan, seen: Observation) -> _Told:
    if seen["uid"] != 0:
        yield f"logged in as uid {seen['uid']}", "root", "set ssh_user to root in the inventory, or run with --sudo"
    if _error(seen["systemd"]):
        yield (
            f"no systemd: {_error(seen['systemd'])}",
            f"systemd {MIN_SYSTEMD} or newer",
            "use a host that runs systemd",
        )
    elif seen["systemd"] < MIN_SYSTEMD:
        yield (
            f"systemd {seen['systemd']} ({seen['os']})",
            f"systemd {MIN_SYSTEMD} or newer (LoadCredential, ProtectProc)",
            "upgrade the distribution: Ubuntu 22.04, Debian 12, RHEL 9 or newer have it",
        )
    elif _error(seen["units"]):
        yield f"systemd does not answer: {_error(seen['units'])}", "a running systemd", "systemctl is-system-running"


def _engine(plan: Plan, _host: HostPlan, seen: Observation) -> _Told:
    release = plan.release
    if not release.managed:
        if not seen["release"]["runs"]:
            yield (
                f"engine_path {release.path} has no bin/vllm that can be run",
                "a virtual environment with vLLM in it",
                "install vLLM there, or unset engine_path so that muster installs it",
            )
        return
    if seen["release"]["complete"] or not isinstance(seen["disk_free"], int):
        return
    needed = ENGINE_BYTES["cpu" if any("cpu" in part for part in release.requirements) else "gpu"]
    if seen["disk_free"] < needed:
        yield (
            f"{seen['disk_free'] / GIB:.1f} GiB free for {release.path}",
            f"{needed / GIB:.0f} GiB for the engine's virtual environment",
            "make room there, or set `root` to a larger file system",
        )


def _gpus(_plan: Plan, host: HostPlan, seen: Observation) -> _Told:
    told = seen["gpus"]
    if _error(told):
        yield (
            f"the NVIDIA driver does not answer: {_error(told)}",
            f"nvidia-smi listing {host.gpus}x {gpu(host.gpu).product}",
            "install or reload the driver; `nvidia-smi` must answer on the host",
        )
        return
    product = gpu(host.gpu)
    devices = told["devices"]
    if len(devices) != host.gpus:
        yield (
            f"{len(devices)} GPUs (driver {told['driver']})",
            f"{host.gpus}, as the inventory says",
            "correct `gpus` in the inventory, or find the missing GPU: `nvidia-smi -L`, `dmesg | grep Xid`",
        )
    for name in sorted({device["name"] for device in devices} - {product.product}):
        yield (
            f"GPU product '{name}'",
            f"'{product.product}', as the inventory's gpu = '{host.gpu}' says",
            "correct `gpu` in the inventory",
        )
    # Drivers differ by a few MiB in what they keep back for themselves.
    small = [
        d["memory_mib"] for d in devices if d["name"] == product.product and d["memory_mib"] < product.memory_mib * 0.99
    ]
    if small:
        yield (
            f"GPUs with {min(small)} MiB",
            f"{product.memory_mib} MiB, which the memory plan counts on",
            "turn MIG off (`nvidia-smi -mig 0`) or correct `gpu` in the inventory",
        )


def _address(_plan: Plan, host: HostPlan, seen: Observation) -> _Told:
    addresses = seen["addresses"]
    if _error(addresses):
        yield f"no list of addresses: {_error(addresses)}", "the `ip` tool", "install iproute2 (RHEL: iproute)"
    elif host.address not in addresses:
        there = ", ".join(f"{address} ({interface})" for address, interface in addresses.items() if interface != "lo")
        yield (
            f"fabric address {host.address} is not on this host; it has {there or 'none'}",
            "the address that the other hosts reach this one at",
            "correct fabric_address in the inventory",
        )
    elif host.interface and addresses[host.address] != host.interface:
        yield (
            f"{host.address} is on {addresses[host.address]}",
            f"on {host.interface}, as the inventory says",
            "correct fabric_interface in the inventory",
        )


def _ports(plan: Plan, host: HostPlan, seen: Observation) -> _Told:
    for name, other in sorted(seen["groups"].items()):
        shared = sorted(set(other.get("ports", [])) & set(host.ports))
        if shared:
            yield (
                f"group {name} on this host uses port{'s' * (len(shared) > 1)} {', '.join(map(str, shared))}",
                f"ports of its own for group {plan.group}",
                "set port, rpc_port, master_port, ray_port or control_port to free ones",
            )
    if _error(seen["listening"]):
        return
    own = {*host.units, *(seen["units"] if not _error(seen["units"]) else ())}
    for port, owner in sorted(seen["listening"].items()):
        if owner["unit"] not in own:
            unit = f", unit {owner['unit']}" if owner["unit"] else ""
            yield (
                f"port {port} is taken by {owner['command']} (pid {owner['pid']}{unit})",
                f"port {port} free for group {plan.group}",
                "stop that process, or choose another port in group_data",
            )


def _files(_plan: Plan, host: HostPlan, seen: Observation) -> _Told:
    for path in sorted(host.files):
        if seen["files"].get(path, {}).get("kind") in ("link", "other"):
            yield f"{path} is no regular file", "a file, or nothing, there", f"remove it: rm -r {path}"
