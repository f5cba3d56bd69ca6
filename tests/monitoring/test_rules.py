"""Every alert fires on what it is for, and nothing fires on a healthy day or on purpose: judged by promtool itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.monitoring import rules
from muster.monitoring.rules import ALERTS
from muster.spec.settings import Monitoring

from . import prometheus_tools
from .days import (
    EDGE,
    GROUP,
    HEAD,
    MEMBER,
    MODEL,
    STEP,
    STEPS,
    Day,
    answers,
    asked,
    certificate,
    during,
    edge,
    engine,
    gone,
    growing,
    guard,
    healthy,
    limit,
    node,
    notation,
    phases,
    server,
)

MONITORING = Monitoring(https=["https://api.example"])
HEALTHY = healthy()
GIB = 2.0**30


def failing(every: float, times: int, *, last: str = "running") -> Day:
    """A group that fails so many times, one failure every so many minutes from minute 10 on."""
    parts, counts = [(10.0, "running")], [(10.0, 0.0)]
    for number in range(1, times + 1):
        parts += [(0.5, "abort"), (0.5, "gather"), (every - 1, "starting")]
        counts.append((every, float(number)))
    day = phases(*parts, last=last)
    for name in ("muster_restarts_total", "muster_aborts_in_window", "muster_failures_in_a_row"):
        day[guard(name)] = during(*counts, last=float(times))
    return day


def without_guard() -> Day:
    return {name: during(last=None) for name in HEALTHY if "muster-guard" in name}


def blocked(cause: str, host: str = MEMBER) -> Day:
    return {
        **phases((10, "running"), last="gather"),
        guard("muster_member_blocked", host, cause=cause): during((10, None), last=1.0),
    }


SILENT = {guard("muster_member_silence_seconds", MEMBER): during((10, 1.0), last=1e9)}
OFF = {**SILENT, **gone(HEALTHY, [MEMBER, "muster-node"], after=10)}
STOPPED = phases((10, "running"), (0.5, "drain"), last="stopped")
AVAILABLE = node("node_filesystem_avail_bytes", MEMBER, mountpoint="/", fstype="ext4", device="/dev/nvme0n1p2")
IDLE = node("node_systemd_unit_state", name="muster-k2-vllm.service", state="inactive")

ACTIVE = edge("haproxy_backend_active_servers", proxy=MODEL)


def unserved(after: float, back: float | None = None) -> Day:
    """The edge has no endpoint of the model, and clients that go on asking get 503."""
    there = [(after, 1.0), *([(back - after, 0.0)] if back else [])]
    last = 1.0 if back else 0.0
    lost = [(minutes, 2.0 * (1 - up)) for minutes, up in there]
    return {
        server("UP"): during(*there, last=last),
        server("DOWN"): during(*((minutes, 1 - up) for minutes, up in there), last=1 - last),
        ACTIVE: during(*there, last=last),
        answers("5xx"): growing(*lost, last=2.0 * (1 - last)),
        answers("5xx", of_model=True): growing(*lost, last=2.0 * (1 - last)),
    }


def one_of_two(lost: float) -> Day:
    """The edge has a second endpoint of the model, and loses it."""
    return {
        limit(MEMBER): during(last=64.0),
        server("UP", MEMBER): during((lost, 1.0), last=0.0),
        server("DOWN", MEMBER): during((lost, 0.0), last=1.0),
    }


FIRES: dict[str, tuple[Day, float, set[tuple[str, str]]]] = {
    # name -> what differs from a healthy day, the minute of the look, alert and host of all that fires then
    "not ready: it waits": (
        phases((10, "running"), (1, "abort"), last="gather"),
        17,
        {("MusterGroupNotReady", HEAD)},
    ),
    "not ready: ranks show no life": (
        {**phases(last="running"), guard("muster_ready"): during((10, 1.0), last=0.0)},
        17,
        {("MusterGroupNotReady", HEAD)},
    ),
    "a failure": (failing(30, 1), 12, {("MusterGroupRestarted", HEAD)}),
    "a failure, long ago": (failing(30, 1), 60, set()),
    "a failure, and loading takes long": (
        failing(30, 1),
        20,
        {("MusterGroupRestarted", HEAD), ("MusterGroupNotReady", HEAD)},
    ),
    "a loop": (failing(4, 3), 21, {("MusterRestartLoop", HEAD), ("MusterGroupNotReady", HEAD)}),
    "the budget is nearly spent": (
        failing(3, 5),
        23.5,
        {("MusterRestartBudgetNearlySpent", HEAD), ("MusterGroupNotReady", HEAD)},
    ),
    "failed": (failing(3, 7, last="failed"), 40, {("MusterGroupFailed", HEAD)}),
    "stopped in the middle of a loop": (failing(4, 3, last="stopped"), 60, set()),
    "a member is silent": (SILENT, 13, {("MusterHostMissing", MEMBER)}),
    "a member is off": ({**OFF, **phases((10, "running"), last="gather")}, 13, {("MusterHostMissing", MEMBER)}),
    "a member is off for long": (
        {**OFF, **phases((10, "running"), last="gather")},
        20,
        {("MusterHostMissing", MEMBER), ("MusterGroupNotReady", HEAD)},
    ),
    "the head is off": (
        {**gone(HEALTHY, ["muster-guard"], after=10), **gone(HEALTHY, [f"{HEAD}:9100"], after=10)}
        | gone(HEALTHY, ["muster-engine"], after=10),
        20,
        {("MusterHostMissing", HEAD)},
    ),
    "GPUs are gone": (blocked("gpu"), 13, {("MusterHostBlocked", MEMBER)}),
    "a fatal Xid": (blocked("xid"), 10.5, {("MusterFatalXid", MEMBER)}),
    "another plan": ({**blocked("plan"), **SILENT}, 13, {("MusterPlanMismatch", MEMBER)}),
    "no room for the next start": (blocked("disk"), 12, {("MusterDiskFilling", MEMBER)}),
    "five percent left": ({AVAILABLE: during((10, 60e9), last=4e9)}, 12, {("MusterDiskFilling", MEMBER)}),
    "full by tomorrow": (
        {AVAILABLE: [19e9 - 250e3 * step * STEP for step in range(STEPS)]},
        80,
        {("MusterDiskFilling", MEMBER)},
    ),
    "a few minutes of writing": (
        {AVAILABLE: [None if step < 200 else 19e9 - 250e3 * step * STEP for step in range(STEPS)]},
        60,
        set(),
    ),
    "weights changed": (
        {node("muster_weights_verified", MEMBER, used_by=GROUP): during((10, 1.0), last=0.0)},
        16,
        {("MusterWeightsUnverified", MEMBER)},
    ),
    "a certificate of ten days": (
        {certificate("probe_ssl_earliest_cert_expiry"): during(last=10 * 86400.0)},
        7,
        {("MusterCertificateExpiring", "")},
    ),
    "a certificate that has ended, which gives no time any more": (
        {
            certificate("probe_ssl_earliest_cert_expiry"): during((20, 20 * 60.0), last=None),
            certificate("probe_success"): during((20, 1.0), last=0.0),
        },
        80,
        {("MusterCertificateExpiring", "")},
    ),
    "a certificate that the monitor never could verify": (
        {
            certificate("probe_ssl_earliest_cert_expiry"): during(last=None),
            certificate("probe_success"): during(last=0.0),
        },
        7,
        {("MusterCertificateExpiring", "")},
    ),
    "the edge is down": (gone(HEALTHY, ["muster-edge"], after=10), 13, {("MusterEdgeDown", EDGE)}),
    "the edge does not reach a group that is ready": (
        unserved(10),
        20,
        {("MusterEdgeModelUnserved", EDGE), ("MusterEdgeEndpointDown", EDGE)},
    ),
    "one endpoint of two does not reach the edge": (
        {
            server("UP", MEMBER): during((10, 1.0), last=0.0),
            server("DOWN", MEMBER): during((10, 0.0), last=1.0),
        },
        18,
        {("MusterEdgeEndpointDown", EDGE)},
    ),
    "an endpoint is lost, and the other does not carry what is asked": (
        {**one_of_two(lost=10), asked(): during((10, 40.0), last=100.0)},
        12,
        {("MusterEdgeCannotCarry", EDGE)},
    ),
    "a group waits, and its model has no other": (
        {**phases((10, "running"), (1, "abort"), last="gather"), **unserved(10)},
        20,
        {("MusterGroupNotReady", HEAD), ("MusterEdgeModelUnserved", EDGE)},
    ),
    "engines answer errors": (
        {
            answers("5xx"): growing((10, 0.0), last=0.5),
            answers("5xx", of_model=True): growing((10, 0.0), last=0.5),
        },
        20,
        {("MusterEdgeErrors", EDGE)},
    ),
    "somebody tries keys": ({answers("4xx"): growing((10, 0.1), last=500.0)}, 13, {("MusterEdgeRefusing", EDGE)}),
    "a clock one hour off": (
        {node("node_time_seconds", MEMBER): [step * STEP + 3600.0 * (step > 40) for step in range(STEPS)]},
        17,
        {("MusterClockOff", MEMBER)},
    ),
    "the driver on disk is newer": (
        {node("muster_driver_drift", MEMBER): during((10, 0.0), last=1.0)},
        16,
        {("MusterDriverDrift", MEMBER)},
    ),
    "drivers differ": (
        {
            node("muster_driver_info", MEMBER, version="580.95.05"): during((10, 1.0), last=None),
            node("muster_driver_info", MEMBER, version="580.99.01"): during((10, None), last=1.0),
        },
        16,
        {("MusterDriverDrift", "")},
    ),
    "plain units: the engine is down": (
        {**without_guard(), engine("up"): during((10, 1.0), last=0.0)},
        16,
        {("MusterEngineDown", HEAD)},
    ),
    "plain units: stopped": (
        {**without_guard(), engine("up"): during((10, 1.0), last=0.0), IDLE: during((10, 0.0), last=1.0)},
        30,
        set(),
    ),
    "the engine's metrics are refused": (
        {engine("up"): during((10, 1.0), last=0.0)},
        16,
        {("MusterEngineUnscraped", HEAD)},
    ),
    "the node exporter is down": (
        gone(HEALTHY, [MEMBER, "muster-node"], after=10),
        16,
        {("MusterHostUnscraped", MEMBER)},
    ),
    "the timer is dead": (
        {
            node("node_textfile_mtime_seconds", MEMBER, file="/x/muster.prom"): [
                float(min(step * STEP, 600)) for step in range(STEPS)
            ]
        },
        26,
        {("MusterHostMetricsStale", MEMBER)},
    ),
}

QUIET: dict[str, Day] = {
    "a healthy day": {},
    "a deliberate stop, and the other endpoint does not carry": {
        **STOPPED,
        **one_of_two(lost=10.5),
        asked(): during((10, 40.0), last=100.0),
    },
    "more is asked than all endpoints carry": {asked(): during((10, 40.0), last=1000.0)},
    "a deliberate stop": STOPPED,
    "a deliberate stop, while clients go on asking": {
        **phases((10, "running"), (0.5, "drain"), (20, "stopped"), (0.5, "gather"), (10, "starting"), last="running"),
        **unserved(10.5, 41.25),
    },
    "a drained group": {server("UP"): during((10, 1.0), last=0.0), server("DRAIN"): during((10, 0.0), last=1.0)}
    | {server("UP", MEMBER): during(last=1.0), server("DOWN", MEMBER): during(last=0.0)},
    "some errors within a minute": {
        answers("5xx"): growing((10, 0.0), (1, 2.0), last=0.0),
        answers("5xx", of_model=True): growing((10, 0.0), (1, 2.0), last=0.0),
    },
    "a deliberate stop, then a host is switched off": {**STOPPED, **OFF},
    "a deliberate stop, and other work takes the GPUs": {
        **STOPPED,
        guard("muster_member_blocked", MEMBER, cause="processes"): during((12, None), last=1.0),
    },
    "a restart on purpose, with half an hour of loading": phases(
        (10, "running"), (0.5, "drain"), (0.25, "gather"), (30, "starting"), last="running"
    ),
    "a deploy, with the guard away for a minute": {
        **phases((10, "running"), (0.5, "drain"), (1, "running"), (0.5, "gather"), (20, "starting"), last="running"),
        **gone(HEALTHY, ["muster-engine"], after=10.5, back=31),
        **{
            name: values
            for name, values in gone(HEALTHY, ["muster-guard"], after=10.5, back=11.5).items()
            if "muster_phase" not in name and "muster_ready" not in name
        },
    },
    "nobody answers at an address whose certificate is good": {
        certificate("probe_ssl_earliest_cert_expiry"): during((20, 60 * 86400.0), last=None),
        certificate("probe_success"): during((20, 1.0), last=0.0),
    },
    "an address is taken out, its certificate ends": {
        certificate("probe_ssl_earliest_cert_expiry"): during((3, 20 * 60.0), last=None),
        certificate("probe_success"): during((3, 1.0), last=None),
        certificate("up"): during((3, 1.0), last=None),
    },
    "a first start": {
        name: during((5, None), last=values[-1]) for name, values in HEALTHY.items() if "node_time" not in name
    }
    | phases((2, "gather"), (30, "starting"), last="running"),
}


def test_alerts_are_named_once_and_say_what_to_do() -> None:
    assert len({each.name for each in ALERTS}) == len(ALERTS)
    for each in ALERTS:
        assert each.summary, each.name
        assert each.fix, each.name
        assert re.fullmatch(r"Muster[A-Za-z]+", each.name)


def test_every_alert_is_seen_to_fire() -> None:
    assert {alert for _, _, fired in FIRES.values() for alert, _ in fired} == {each.name for each in ALERTS}


def test_every_rule_is_rendered_in_order() -> None:
    names = [rule["alert"] for rule in rules.rules(Monitoring())["groups"][0]["rules"]]
    assert names == [each.name for each in ALERTS]


def test_patience_shortens_every_wait() -> None:
    short = rules.rules(Monitoring(patience=10))["groups"][0]["rules"]
    assert {rule["for"] for rule in short if "for" in rule} == {"14s", "12s", "10s", "5s", "2s"}


def promtool(tmp_path: Path, days: Mapping[str, tuple[Day, dict[str, Any]]]) -> None:
    """Have promtool evaluate the rules over days and look at what they gave. One run: each takes a second to start.

    Args:
        tmp_path: for its files.
        days: name -> the day, and promtool's own description of what it must give.
    """
    interval = f"{STEP}s"
    tests = [
        {
            "name": name,
            "interval": interval,
            "input_series": [{"series": series, "values": notation(values)} for series, values in day.items()],
            **looks,
        }
        for name, (day, looks) in days.items()
    ]
    test = {"rule_files": ["rules.yml"], "evaluation_interval": interval, "tests": tests}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules.rules(MONITORING)))
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test, width=10_000))
    prometheus_tools.run("promtool", "test", "rules", "test.yml", cwd=tmp_path)


def firing(*looks: tuple[str, set[tuple[str, str]]]) -> dict[str, Any]:
    """Return looks at a day as promtool takes them: when, and alert and host of all that fires then."""
    return {
        "promql_expr_test": [
            {
                "expr": 'count by (alertname, host) (ALERTS{alertstate="firing"})',
                "eval_time": at,
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"' + (f',host="{host}"' if host else "") + "}", "value": 1}
                    for name, host in sorted(fired)
                ],
            }
            for at, fired in looks
        ]
    }


@pytest.mark.slow
def test_a_fault_fires_its_alert_and_no_other(tmp_path: Path) -> None:
    days = {
        name: ({**HEALTHY, **change}, firing((f"{round(minute * 60)}s", fired)))
        for name, (change, minute, fired) in FIRES.items()
    }
    promtool(tmp_path, days)


@pytest.mark.slow
def test_nothing_fires_on_a_healthy_day_or_on_purpose(tmp_path: Path) -> None:
    never = firing(*((f"{minute}m", set()) for minute in range(1, 89)))
    promtool(tmp_path, {name: ({**HEALTHY, **change}, never) for name, change in QUIET.items()})


@pytest.mark.slow
def test_an_alert_too_many_or_too_few_is_seen(tmp_path: Path) -> None:
    day = {**HEALTHY, **SILENT}
    for wrong in (set(), {("MusterHostMissing", HEAD)}, {("MusterHostMissing", MEMBER), ("MusterClockOff", MEMBER)}):
        with pytest.raises(AssertionError, match="MusterHostMissing"):
            promtool(tmp_path, {"a member is silent": (day, firing(("13m", wrong)))})


@pytest.mark.slow
def test_an_alert_ends_with_its_fault(tmp_path: Path) -> None:
    silence = {guard("muster_member_silence_seconds", MEMBER): during((10, 1.0), (20, 60.0), last=1.0)}
    looks = [("29m", {("MusterHostMissing", MEMBER)}), ("32m", set())]
    promtool(tmp_path, {"thirty minutes": ({**HEALTHY, **silence}, firing(*looks))})


@pytest.mark.slow
def test_the_texts_of_an_alert_name_group_and_host(tmp_path: Path) -> None:
    silent = next(each for each in ALERTS if each.name == "MusterHostMissing")
    labels = {"group": GROUP, "host": MEMBER, "job": "muster-guard", "instance": f"{HEAD}:29600"}
    alert = {
        "exp_labels": {**labels, "severity": "critical"},
        "exp_annotations": {
            "summary": f"{MEMBER} of {GROUP} is silent: off, cut off, or its guard is not running",
            "fix": silent.fix,
            "runbook_url": "docs/runbook.md#musterhostmissing",
        },
    }
    look = {"eval_time": "13m", "alertname": silent.name, "exp_alerts": [alert]}
    promtool(tmp_path, {"a member is silent": ({**HEALTHY, **SILENT}, {"alert_rule_test": [look]})})
