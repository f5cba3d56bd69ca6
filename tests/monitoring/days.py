"""Ninety minutes of a group's metrics: a healthy day, and what faults and deliberate acts make of it.

A day is a series's name with its labels -> its values, one each STEP seconds; None is a scrape that gave none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

STEP = 15
MINUTES = 90
STEPS = MINUTES * 60 // STEP
GROUP, HEAD, MEMBER = "k2", "gpu-0", "gpu-1"
EDGE, MODEL = "edge-0", "k2-0c90c9"
PHASES = ("stopped", "failed", "backoff", "gather", "starting", "running", "drain", "abort")

Values = Sequence[float | None]
Day = dict[str, Values]


def during(*parts: tuple[float, float | None], last: float | None) -> list[float | None]:
    """Return a series: each value for so many minutes, then `last` until the day ends."""
    values: list[float | None] = []
    for minutes, value in parts:
        values += [value] * round(minutes * 60 / STEP)
    assert len(values) <= STEPS
    return values + [last] * (STEPS - len(values))


def guard(name: str, host: str = HEAD, /, **labels: str) -> str:
    return series(name, job="muster-guard", instance=f"{HEAD}:29600", host=host, **labels)


def engine(name: str, host: str = HEAD, /, **labels: str) -> str:
    return series(name, job="muster-engine", instance=f"{host}:8000", host=host, rank="0", **labels)


def node(name: str, host: str = HEAD, /, **labels: str) -> str:
    rank = "0" if host == HEAD else "1"
    return series(name, job="muster-node", instance=f"{host}:9100", host=host, rank=rank, **labels)


def edge(name: str, host: str = EDGE, /, **labels: str) -> str:
    return series(name, group="", job="muster-edge", instance=f"{host}:8405", host=host, **labels)


def server(state: str, host: str = HEAD) -> str:
    """Return the state of an endpoint at the edge; Prometheus takes its group out of its name."""
    named = {"proxy": MODEL, "server": f"{GROUP}_{host}", "state": state}
    return series("haproxy_server_status", job="muster-edge", instance=f"{EDGE}:8405", host=EDGE, **named)


def limit(host: str = HEAD) -> str:
    """Return the requests that the edge sends to an endpoint at once."""
    named = {"proxy": MODEL, "server": f"{GROUP}_{host}"}
    return series("haproxy_server_limit_sessions", job="muster-edge", instance=f"{EDGE}:8405", host=EDGE, **named)


def asked() -> str:
    """Return the requests of the model that run or wait."""
    return edge("haproxy_backend_current_sessions", proxy=MODEL)


def answers(code: str, *, of_model: bool = False) -> str:
    """Return the count of an edge's answers to clients, or of those to requests for the model."""
    if of_model:
        return edge("haproxy_backend_http_responses_total", proxy=MODEL, code=code)
    return edge("haproxy_frontend_http_responses_total", proxy="edge", code=code)


def growing(*parts: tuple[float, float], last: float) -> list[float]:
    """Return a counter: for so many minutes so much a second, then `last` a second until the day ends."""
    rates = during(*parts, last=last)
    total, values = 0.0, []
    for rate in rates:
        total += (rate or 0.0) * STEP
        values.append(total)
    return values


def certificate(name: str) -> str:
    return series(name, job="muster-certificate", instance="https://api.example")


def series(name: str, /, **labels: str) -> str:
    pairs = {"group": GROUP, **labels} if labels.get("job") != "muster-certificate" else labels
    pairs = {key: value for key, value in pairs.items() if value}
    return f"{name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in pairs.items())}}}"


def phases(*parts: tuple[float, str], last: str) -> Day:
    """Return the series of a group's phase, each for so many minutes, and of its readiness."""
    day: Day = {}
    for name in PHASES:
        values = [(minutes, float(phase == name)) for minutes, phase in parts]
        day[guard("muster_phase", phase=name)] = during(*values, last=float(last == name))
    ready = [(minutes, float(phase == "running")) for minutes, phase in parts]
    day[guard("muster_ready")] = during(*ready, last=float(last == "running"))
    return day


def healthy() -> Day:
    """Return a day on which nothing happens."""
    day = phases(last="running")
    for name, value in (
        ("up", 1.0),
        ("muster_restarts_total", 0.0),
        ("muster_aborts_in_window", 0.0),
        ("muster_restart_budget", 6.0),
        ("muster_failures_in_a_row", 0.0),
    ):
        day[guard(name)] = during(last=value)
    day[engine("up")] = during(last=1.0)
    for host in (HEAD, MEMBER):
        day[guard("muster_member_silence_seconds", host)] = during(last=1.2)
        day[node("up", host)] = during(last=1.0)
        day[node("muster_weights_verified", host, used_by=GROUP)] = during(last=1.0)
        day[node("muster_driver_drift", host)] = during(last=0.0)
        day[node("muster_driver_info", host, version="580.95.05")] = during(last=1.0)
        for name, value in (("avail", 60e9), ("size", 100e9)):
            labels = {"mountpoint": "/", "fstype": "ext4", "device": "/dev/nvme0n1p2"}
            day[node(f"node_filesystem_{name}_bytes", host, **labels)] = during(last=value)
        clock = [float(step * STEP) for step in range(STEPS)]
        day[node("node_time_seconds", host)] = clock
        day[node("node_textfile_mtime_seconds", host, file="/x/muster.prom")] = clock
    day[edge("up")] = during(last=1.0)
    for state in ("UP", "DOWN", "MAINT", "DRAIN"):
        day[server(state)] = during(last=float(state == "UP"))
    day[limit()] = during(last=64.0)
    day[asked()] = during(last=40.0)
    day[edge("haproxy_backend_active_servers", proxy=MODEL)] = during(last=1.0)
    for code, each in (("2xx", 2.0), ("4xx", 0.1), ("5xx", 0.0)):
        day[answers(code)] = day[answers(code, of_model=True)] = growing(last=each)
    for name, value in (("probe_ssl_earliest_cert_expiry", 60 * 86400.0), ("probe_success", 1.0), ("up", 1.0)):
        day[certificate(name)] = during(last=value)
    return day


def gone(day: Mapping[str, Values], match: Iterable[str], *, after: float, back: float | None = None) -> Day:
    """Return the series of a day whose text holds all of `match`, without values for some time; `up` is 0 then.

    Args:
        after, back: minutes; gone to the end of the day where `back` is None.
    """
    words, first = tuple(match), round(after * 60 / STEP)
    last = STEPS if back is None else round(back * 60 / STEP)
    return {
        name: [
            (0.0 if name.startswith("up{") else None) if first <= step < last else value
            for step, value in enumerate(values)
        ]
        for name, values in day.items()
        if all(word in name for word in words)
    }


def notation(values: Values) -> str:
    """Return values as promtool takes them: what a scrape did not give is gone at once."""
    words: list[str] = []
    for before, value in zip([None, *values], values, strict=False):
        words.append(f"{value:.12g}" if value is not None else "_" if before is None else "stale")
    return " ".join(words)
