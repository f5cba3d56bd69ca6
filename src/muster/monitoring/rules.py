"""The alerts of a fleet: what each means, when it fires, what to do. Pure.

They name no group: one set of rules serves every group that a Prometheus scrapes. What is deliberate raises none: the
guard tells a stop, a drain and a start on purpose from a failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from muster.spec.settings import Monitoring

Severity = Literal["critical", "warning", "info"]

ON_PURPOSE = 'muster_phase{phase=~"stopped|drain"} == 1'
SILENT = 30
"""Seconds; a guard reports every 2 s, and after 15 s of silence the head ends the generation."""
LOOP = 3
"""Failures without 30 healthy minutes between them."""
CERTIFICATE_DAYS = 14
# A certificate that has ended, or that the exporter cannot verify, gives no time: the last one known counts.
_CERTIFICATE_ENDS = "last_over_time(probe_ssl_earliest_cert_expiry[30d])"
CLOCK_SECONDS = 5
_DISKS = 'job="muster-node",fstype!~"tmpfs|ramfs|squashfs|overlay|nfs.*"'
_FREE = f"node_filesystem_avail_bytes{{{_DISKS}}} / node_filesystem_size_bytes{{{_DISKS}}}"
_UP = 'haproxy_server_status{job="muster-edge",state="UP"}'
_DOWN = 'haproxy_server_status{job="muster-edge",state="DOWN"} == 1'
# A backend's sessions are those that run and those that wait; a server's limit is its maxconn.
_ASKED_AT_ONCE = 'sum by (host, proxy) (haproxy_backend_current_sessions{job="muster-edge"})'
_RUN_AT_ONCE = (
    f'sum by (host, proxy) (haproxy_server_limit_sessions{{job="muster-edge"}} * on (host, proxy, server) {_UP})'
)
_LOADS = f'({ON_PURPOSE} or (muster_phase{{phase="starting"}} == 1 and on (group) muster_failures_in_a_row == 0))'
_ANSWERED = 'rate(haproxy_backend_http_responses_total{job="muster-edge"}[2m])'
_FAILED = 'rate(haproxy_backend_http_responses_total{job="muster-edge",code="5xx"}[2m])'
_ASKED = 'rate(haproxy_frontend_http_responses_total{job="muster-edge",proxy="edge"}[2m])'
_REFUSED = 'rate(haproxy_frontend_http_responses_total{job="muster-edge",proxy="edge",code="4xx"}[2m])'
REFUSALS = 10
"""Refused requests a second that are no client's mistake any more."""
_NEARLY = "muster_aborts_in_window >= muster_restart_budget - 1"


@dataclass(frozen=True)
class Alert:
    """One alert.

    Args:
        name: as Prometheus shows it; its section in docs/runbook.md.
        severity: `critical` wakes somebody, `warning` is for the working day, `info` is for the record.
        expr: PromQL; each series that it returns is one alert.
        patience: how long that must last, in parts of `monitoring_patience`; 0 fires at once.
        summary: one line, with the labels of the series.
        fix: what to do first.
    """

    name: str
    severity: Severity
    expr: str
    patience: float
    summary: str
    fix: str


ALERTS = (
    Alert(
        "MusterGroupNotReady",
        "critical",
        "muster_ready == 0 and on (group) ("
        'muster_phase{phase=~"gather|backoff|abort|running"} == 1 or '
        '(muster_phase{phase="starting"} == 1 and on (group) muster_failures_in_a_row > 0))',
        1,
        "{{ $labels.group }} does not answer through every rank, and nobody stopped it",
        "muster status says what the group waits for",
    ),
    Alert(
        "MusterGroupFailed",
        "critical",
        'muster_phase{phase="failed"} == 1',
        0,
        "{{ $labels.group }} has spent its restart budget and starts no more",
        "muster logs shows the first failure; mend it, then muster resume",
    ),
    Alert(
        "MusterRestartBudgetNearlySpent",
        "critical",
        f'{_NEARLY} unless on (group) (muster_phase{{phase=~"stopped|drain|failed"}} == 1)',
        0,
        "{{ $labels.group }} failed {{ $value }} times within an hour; two more at most, and it starts no more",
        "muster logs shows what fails; muster stop holds the group before the budget does",
    ),
    Alert(
        "MusterRestartLoop",
        "warning",
        f"muster_failures_in_a_row >= {LOOP} unless on (group) ({_NEARLY})"
        ' unless on (group) (muster_phase{phase=~"stopped|drain|failed"} == 1)',
        0,
        "{{ $labels.group }} failed {{ $value }} times without 30 healthy minutes in between",
        "muster logs compares the last failures: the same words each time are a cause that a restart does not mend",
    ),
    Alert(
        "MusterGroupRestarted",
        "info",
        f"increase(muster_restarts_total[15m]) > 0 unless on (group) (muster_failures_in_a_row >= {LOOP})"
        ' unless on (group) (muster_phase{phase=~"stopped|drain|failed"} == 1)',
        0,
        "{{ $labels.group }} ended a generation and starts again by itself",
        "nothing now; muster logs keeps the first failure",
    ),
    Alert(
        "MusterHostMissing",
        "critical",
        f"(muster_member_silence_seconds > {SILENT} unless on (group) ({ON_PURPOSE})"
        # A refused report breaks no silence.
        ' unless on (group, host) muster_member_blocked{cause="plan"} == 1) or up{job="muster-guard"} == 0',
        0.5,
        "{{ $labels.host }} of {{ $labels.group }} is silent: off, cut off, or its guard is not running",
        "is the host on, and does it answer SSH? Its guard joins by itself when it is back",
    ),
    Alert(
        "MusterHostBlocked",
        "critical",
        f'muster_member_blocked{{cause!~"xid|disk|plan|operator|unchecked"}} == 1 unless on (group) ({ON_PURPOSE})',
        0.5,
        "{{ $labels.host }} of {{ $labels.group }} can start no rank ({{ $labels.cause }})",
        "muster status has the guard's sentence: what it found, what it needs, and the fix",
    ),
    Alert(
        "MusterFatalXid",
        "critical",
        'muster_member_blocked{cause="xid"} == 1',
        0,
        "{{ $labels.host }} of {{ $labels.group }} has a GPU or NVSwitch that the driver gave up",
        "reset the GPU or reboot the host as muster status says, then muster resume",
    ),
    Alert(
        "MusterPlanMismatch",
        "critical",
        'muster_member_blocked{cause="plan"} == 1',
        0.5,
        "{{ $labels.host }} carries another plan than the head of {{ $labels.group }}, which refuses it",
        "run the deploy on every host",
    ),
    Alert(
        "MusterDiskFilling",
        "warning",
        f"{_FREE} < 0.05 or "
        # A line through a few minutes says nothing of a day.
        f"(predict_linear(node_filesystem_avail_bytes{{{_DISKS}}}[6h], 86400) < 0 and {_FREE} < 0.2"
        f" and node_filesystem_avail_bytes{{{_DISKS}}} offset 1h >= 0) or "
        'muster_member_blocked{cause="disk"} == 1',
        0.2,
        "{{ $labels.host }} runs out of disk ({{ $labels.mountpoint }}): the next start may be refused",
        "muster weights prune and muster deploy remove what nothing needs; make room",
    ),
    Alert(
        "MusterWeightsUnverified",
        "warning",
        # A host of two groups is scraped for both, and says itself whose weights they are.
        "label_replace(max by (host, used_by, revision) (muster_weights_verified) == 0,"
        ' "group", "$1", "used_by", "(.*)")',
        1,
        "{{ $labels.host }} serves weights of {{ $labels.group }} that have changed since they were verified",
        "muster weights verify reads every byte; muster stage repairs what is wrong",
    ),
    Alert(
        "MusterCertificateExpiring",
        "warning",
        f'({_CERTIFICATE_ENDS} - time() < {CERTIFICATE_DAYS * 86400} and on (instance) up{{job="muster-certificate"}})'
        f' or (probe_success{{job="muster-certificate"}} == 0 unless on (instance) {_CERTIFICATE_ENDS})',
        1,
        "the certificate of {{ $labels.instance }} ends in less than "
        f"{CERTIFICATE_DAYS} days or has ended, or the monitor never could verify it",
        "renew it where it is served, and load it there",
    ),
    Alert(
        "MusterEdgeDown",
        "critical",
        'up{job="muster-edge"} == 0',
        0.5,
        "the edge {{ $labels.host }} does not answer the monitor: off, cut off, or its HAProxy is not running",
        "systemctl status haproxy on the edge; is the monitor in monitor_networks, and deploys/edge.py run since?",
    ),
    Alert(
        "MusterEdgeModelUnserved",
        "critical",
        f"max by (host, proxy, group) ({_UP}) == 0 and on (host, proxy) (max by (host, proxy) ({_UP}) == 0)"
        f" unless on (group) {_LOADS}",
        # What ails a group is told before what follows from it.
        1.2,
        "{{ $labels.host }} has no endpoint for {{ $labels.proxy }}, nor one of {{ $labels.group }}: clients get 503",
        "muster status says whether the group is ready; if it is, the edge does not reach its head's control port",
    ),
    Alert(
        "MusterEdgeEndpointDown",
        "warning",
        f"{_DOWN} and on (group) muster_ready == 1",
        # Where it was the last endpoint of a model, that is told first.
        1.4,
        "{{ $labels.group }} is ready, and the edge {{ $labels.host }} does not hear so ({{ $labels.server }})",
        "from the edge: curl the head's control port, /ready; is the edge in monitor_networks of the group?",
    ),
    Alert(
        "MusterEdgeCannotCarry",
        "warning",
        f"{_ASKED_AT_ONCE} > {_RUN_AT_ONCE} and on (host, proxy) {_RUN_AT_ONCE} > 0"
        f" and on (host, proxy) ({_DOWN} unless on (group) {_LOADS})",
        0.2,
        "a group of {{ $labels.proxy }} is lost: {{ $labels.host }} is asked for {{ $value }} requests at once, and the"
        " others run fewer",
        "bring the group back: until then clients wait, and what may not wait gets 429; muster status says how many",
    ),
    Alert(
        "MusterEdgeErrors",
        "warning",
        f"sum by (host, proxy) ({_FAILED}) > 0.05 * sum by (host, proxy) ({_ANSWERED})"
        # Without an endpoint each answer is a 503: that has its own alert, or is on purpose.
        ' and on (host, proxy) min_over_time(haproxy_backend_active_servers{job="muster-edge"}[2m]) > 0',
        1,
        "more than 5 % of the answers of {{ $labels.proxy }} at {{ $labels.host }} are errors of the service",
        "journalctl -u haproxy on the edge: server and status of each request; then that engine's log",
    ),
    Alert(
        "MusterEdgeRefusing",
        "warning",
        f"sum by (host) ({_REFUSED}) > {REFUSALS} and on (host)"
        f" sum by (host) ({_REFUSED}) > 0.5 * sum by (host) ({_ASKED})",
        0.2,
        "{{ $labels.host }} refuses {{ $value | humanize }} requests a second, more than half of all",
        "journalctl -u haproxy on the edge: status, key and address of each; muster key list",
    ),
    Alert(
        "MusterClockOff",
        "warning",
        f'abs(node_time_seconds{{job="muster-node"}} - timestamp(node_time_seconds{{job="muster-node"}}))'
        f" > {CLOCK_SECONDS}",
        1,
        "the clock of {{ $labels.host }} is {{ $value | humanizeDuration }} off the monitor's",
        "timedatectl on both; the group itself compares no clocks, certificates and logs do",
    ),
    Alert(
        "MusterDriverDrift",
        "warning",
        "muster_driver_drift == 1 or count by (group) (count by (group, version) (muster_driver_info)) > 1",
        1,
        "the GPU driver of {{ $labels.group }} {{ $labels.host }} is not what is loaded, or differs between hosts",
        "muster drift names it; reboot the host at a time of your choice, and hold unattended upgrades of the driver",
    ),
    Alert(
        "MusterEngineDown",
        "critical",
        'up{job=~"muster-engine.*"} == 0 unless on (group) up{job="muster-guard"} unless on (host) '
        '(node_systemd_unit_state{name=~"muster-.*vllm.service",state="inactive"} == 1)',
        1,
        "{{ $labels.host }} does not answer for {{ $labels.group }}, which has no guard",
        "systemctl status 'muster-*' on its hosts; muster restart starts all ranks in order",
    ),
    Alert(
        "MusterEngineUnscraped",
        "warning",
        'up{job=~"muster-engine.*"} == 0 and on (group) muster_ready == 1',
        1,
        "{{ $labels.group }} serves, and Prometheus gets no metrics of its engine on {{ $labels.host }}",
        "the API key, or client_networks without the monitor; its targets page shows the error",
    ),
    Alert(
        "MusterHostUnscraped",
        "warning",
        f'up{{job="muster-node"}} == 0 unless on (group, host) (muster_member_silence_seconds > {SILENT})'
        ' unless on (group, host) (up{job="muster-guard"} == 0)',
        1,
        "{{ $labels.host }} of {{ $labels.group }} is there, and its node exporter does not answer",
        "systemctl status prometheus-node-exporter on the host; or run deploys/monitoring.py again",
    ),
    Alert(
        "MusterHostMetricsStale",
        "warning",
        'time() - node_textfile_mtime_seconds{file=~".*muster.prom"} > 600',
        1,
        "{{ $labels.host }} has measured neither GPUs nor weights for ten minutes",
        "systemctl status muster-host-metrics.timer muster-host-metrics.service on the host",
    ),
)


def rules(monitoring: Monitoring) -> dict[str, Any]:
    """Return the rules as Prometheus reads them.

    Args:
        monitoring: patience of the alerts, and where their runbook is.
    """
    return {"groups": [{"name": "muster", "rules": [_rule(each, monitoring) for each in ALERTS]}]}


def _rule(alert: Alert, monitoring: Monitoring) -> dict[str, Any]:
    seconds = round(alert.patience * monitoring.patience)
    return {
        "alert": alert.name,
        "expr": alert.expr,
        **({"for": f"{seconds}s"} if seconds else {}),
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "fix": alert.fix,
            "runbook_url": f"{monitoring.runbook}#{alert.name.lower()}",
        },
    }
