"""The files of Prometheus and Alertmanager for groups, as they lie in /etc/prometheus. Pure.

All but the targets are the same for every group: a Prometheus that watches several takes each group's target files.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import yaml

from muster.monitoring import rules
from muster.monitoring.targets import (
    CERTIFICATE,
    CERTIFICATE_MODULE,
    EDGE,
    ENGINE,
    GUARD,
    KINDS,
    Target,
    edge_targets,
    targets_of,
)
from muster.monitoring.watched import Watched
from muster.plan.types import Plan
from muster.spec.settings import Monitoring, Settings

PROMETHEUS, RULES, ALERTMANAGER, BLACKBOX = (
    "prometheus.yml",
    "muster/rules.yml",
    "alertmanager.yml",
    "muster/blackbox.yml",
)
ALERTMANAGER_AT, BLACKBOX_AT = "127.0.0.1:9093", "127.0.0.1:9115"
_AS_CLIENTS = "http_2xx"
KEYED = "keyed"
"""Kind of engines that ask for the API key. Each group has a job of its own: a job has one key."""

_MARK = "# Written by muster; a change here is undone by the next run.\n"
_EXAMPLE = """\
# Written by muster as an example that tells nobody: name your receivers, keep the inhibitions, and give the file as
# monitoring_alertmanager_file. The same file may serve other alerts than muster's.
"""


def files(watched: Watched, keyed: Collection[str] = (), edges: Mapping[str, str] = {}) -> dict[str, str]:
    """Return every file for a Prometheus that watches groups, by its path below /etc/prometheus.

    Args:
        watched: the groups.
        keyed: other groups whose engines ask for an API key, and that this Prometheus watches too.
        edges: name -> address of the edges before the groups.
    """
    return {
        PROMETHEUS: prometheus(watched.monitoring, {*keyed, *watched.keyed}),
        RULES: _MARK + _yaml(rules.rules(watched.monitoring)),
        ALERTMANAGER: _EXAMPLE + _yaml(alertmanager()),
        BLACKBOX: _MARK + _yaml(blackbox()),
        **{path: text for plan, settings in watched.groups for path, text in _target_files(plan, settings).items()},
        **{
            target_path(name, kind): _targets([target])
            for name, address in edges.items()
            for kind, target in edge_targets(name, address, watched.edge).items()
        },
    }


def _target_files(plan: Plan, settings: Settings) -> dict[str, str]:
    """Return the files that name a group's targets; Prometheus reads them again when they change."""
    found = targets_of(plan, settings)
    return {
        target_path(plan.group, KEYED if kind == ENGINE and plan.api_key_path else kind): _targets(targets)
        for kind, targets in found.items()
    }


def target_path(group: str, kind: str) -> str:
    """Return the path of one file of targets; `group` may be `*`."""
    return f"muster/targets/{group}.{kind}.json"


def keyed_groups(names: Iterable[str]) -> set[str]:
    """Return the groups whose engines ask for a key, from the names of the files of targets that are there."""
    suffix = target_path("", KEYED).rpartition("/")[2]
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


def key_path(group: str) -> str:
    """Return where Prometheus reads a group's API key."""
    return f"muster/keys/{group}"


def prometheus(monitoring: Monitoring, keyed: Collection[str] = ()) -> str:
    """Return prometheus.yml.

    Args:
        monitoring: interval of scrapes, and the addresses whose certificates are watched.
        keyed: groups whose engines ask for an API key.
    """
    jobs = [_job(kind, target_path("*", kind)) for kind in KINDS]
    # The guard's lines name the host that they are about; what stands beside its address is of the head.
    jobs[KINDS.index(GUARD)]["honor_labels"] = True
    jobs += [
        {
            **_job(f"{ENGINE}-{group}", target_path(group, KEYED)),
            "authorization": {"credentials_file": key_path(group)},
        }
        for group in sorted(keyed)
    ]
    # A server is named after its group and host: the group is what an alert of the edge and one of the guard share.
    by_group = {"source_labels": ["server"], "regex": "([a-z0-9-]+)_.+", "target_label": "group"}
    jobs.append({**_job(EDGE, target_path("*", EDGE)), "metric_relabel_configs": [by_group]})
    jobs.append(_certificates(monitoring.https))
    seconds = f"{monitoring.interval}s"
    return _MARK + _yaml(
        {
            "global": {"scrape_interval": seconds, "evaluation_interval": seconds},
            "rule_files": [RULES],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [ALERTMANAGER_AT]}]}]},
            "scrape_configs": jobs,
        }
    )


def alertmanager() -> dict[str, Any]:
    """Return an example: what wakes somebody, what waits for the day, and which alert makes others redundant.

    A host that is missing, blocked or of another plan is why its group is not ready: one page names the cause.
    """
    causes = "MusterHostMissing|MusterHostBlocked|MusterFatalXid|MusterPlanMismatch|MusterGroupFailed"
    ladder = ("MusterGroupFailed", "MusterRestartBudgetNearlySpent", "MusterRestartLoop", "MusterGroupRestarted")
    return {
        "route": {
            "receiver": "day",
            "group_by": ["group"],
            "group_wait": "30s",
            "repeat_interval": "12h",
            "routes": [
                {"receiver": "wake", "matchers": ['severity="critical"'], "repeat_interval": "1h"},
                {"receiver": "record", "matchers": ['severity="info"']},
            ],
        },
        "receivers": [{"name": name} for name in ("wake", "day", "record")],
        "inhibit_rules": [
            _inhibit(f"{causes}|MusterRestartBudgetNearlySpent", "MusterGroupNotReady|MusterGroupRestarted"),
            _inhibit("MusterRestartLoop|MusterGroupNotReady", "MusterGroupRestarted"),
            _inhibit(f"{causes}|MusterGroupNotReady", "MusterEdgeModelUnserved|MusterEdgeEndpointDown"),
            _inhibit("MusterEdgeModelUnserved", "MusterEdgeEndpointDown"),
            # Those who wait too long get 503, and those who may not wait 429.
            _inhibit("MusterEdgeCannotCarry", "MusterEdgeErrors|MusterEdgeRefusing", equal="host"),
            *(_inhibit(worse, "|".join(ladder[step:])) for step, worse in enumerate(ladder[:-1], 1)),
        ],
    }


def arguments(monitoring: Monitoring) -> Mapping[str, str]:
    """Return program -> its arguments: all listen on loopback, for an SSH tunnel or a Grafana on the same host."""
    return {
        "prometheus": (
            f"--web.listen-address=127.0.0.1:9090 --storage.tsdb.retention.time={monitoring.retention_days}d"
        ),
        "prometheus-alertmanager": f"--web.listen-address={ALERTMANAGER_AT} --cluster.listen-address=",
        "prometheus-blackbox-exporter": (
            f"--config.file=/etc/prometheus/{BLACKBOX} --web.listen-address={BLACKBOX_AT}"
        ),
    }


def _job(kind: str, path: str) -> dict[str, Any]:
    return {"job_name": f"muster-{kind}", "file_sd_configs": [{"files": [path]}]}


def blackbox() -> dict[str, Any]:
    """Return how the blackbox exporter probes: an address as its clients do, and the certificate of an edge."""
    tls = {"tls": True, "tls_config": {"insecure_skip_verify": True}}
    return {
        "modules": {
            _AS_CLIENTS: {"prober": "http"},
            CERTIFICATE_MODULE: {"prober": "tcp", "tcp": tls},
        }
    }


def _certificates(addresses: Collection[str]) -> dict[str, Any]:
    return {
        **_job(CERTIFICATE, target_path("*", CERTIFICATE)),
        "metrics_path": "/probe",
        **({"static_configs": [{"targets": list(addresses)}]} if addresses else {}),
        "relabel_configs": [
            {
                "source_labels": ["__param_module"],
                "regex": "",
                "target_label": "__param_module",
                "replacement": _AS_CLIENTS,
            },
            {"source_labels": ["__address__"], "target_label": "__param_target"},
            {"source_labels": ["__param_target"], "target_label": "instance"},
            {"target_label": "__address__", "replacement": BLACKBOX_AT},
        ],
    }


def _inhibit(source: str, target: str, equal: str = "group") -> dict[str, Any]:
    return {
        "source_matchers": [f'alertname=~"{source}"'],
        "target_matchers": [f'alertname=~"{target}"'],
        "equal": [equal],
    }


def _targets(targets: Collection[Target]) -> str:
    entries = [{"targets": [each.at], "labels": dict(each.labels)} for each in targets]
    return json.dumps(entries, indent=1) + "\n"


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=110, allow_unicode=True)
