"""Hosts measure the fabric between them, over SSH sessions at once: pairs, a meeting of all, an all-reduce."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from pyinfra.api import Host, State

from muster.hosts import programs
from muster.hosts.all_hosts import each, hosts_of
from muster.hosts.run_programs import run_program
from muster.preflight import allreduce, meeting, pairs
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.spec.settings import Settings

PAIR_SECONDS = 45


def measure(state: State, needs: Mapping[str, Needs], reports: Iterable[HostReport], port: int) -> list[pairs.Measured]:
    """Let every two hosts that answered measure the fabric between them, round by round.

    Args:
        state: pyinfra's.
        needs: by host.
        reports: of all hosts; unreached ones, and those without their fabric address, are left out.
        port: TCP port that the servers listen on.
    """
    sizes = pairs.mtus(reports, needs)
    hosts, results = hosts_of(state), []
    for meetings in pairs.rounds(list(sizes)):
        requests: dict[str, Any] = {}
        for pair in meetings:
            requests |= pairs.requests(pair, needs, sizes, port, secrets.token_hex(16))

        def one(host: Host, requests: Mapping[str, Any] = requests) -> dict[str, Any]:
            return run_program(state, host, "measure_pair", requests[host.name], seconds=PAIR_SECONDS)

        answers = each([hosts[name] for name in requests], one)
        results += [pairs.measured(pair, answers) for pair in meetings]
    return results


def meet(state: State, needs: Mapping[str, Needs], reports: Iterable[HostReport], port: int) -> list[pairs.Measured]:
    """Let all hosts that answered meet at once, in one session each: connections and full packets, no load.

    Args:
        state, needs, reports, port: as for `measure`.
    """
    sizes = pairs.mtus(reports, needs)
    if len(sizes) < 2:
        return []
    requests = meeting.requests(needs, sizes, port, secrets.token_hex(16))

    def one(host: Host) -> dict[str, Any]:
        return run_program(state, host, "meet_peers", requests[host.name], seconds=PAIR_SECONDS)

    hosts = hosts_of(state)
    return meeting.results(each([hosts[name] for name in requests], one))


def all_reduce(
    state: State, needs: Mapping[str, Needs], settings: Settings, *, backend: str = "nccl"
) -> dict[str, allreduce.AllReduce]:
    """Run an all-reduce across the group with each host's installed torch.

    Args:
        state: pyinfra's.
        needs: by host, in inventory order.
        settings: `preflight_port`, which the ranks meet on, and NCCL's variables in `extra_env`.
        backend: of torch.distributed.
    """
    nccl = {name: value for name, value in settings.extra_env.items() if name.startswith("NCCL_")}
    requests = allreduce.requests(needs, port=settings.preflight.port, env=nccl, backend=backend)
    hosts = hosts_of(state)

    def one(host: Host) -> allreduce.AllReduce:
        request = {
            "python": f"{needs[host.name].release}/bin/python",
            "program": programs.bundle({"measure_allreduce": requests[host.name]}),
            "seconds": allreduce.SECONDS + 30,
        }
        answer = run_program(state, host, "run_unprivileged", request, seconds=allreduce.SECONDS + 90)
        return allreduce.read_inner(answer)

    return each([hosts[name] for name in needs], one)
