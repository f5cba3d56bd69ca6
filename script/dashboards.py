"""Makes dashboards/*.json with Grafana's own builders, whose types are its schema.

`.venv/bin/python script/dashboards.py` writes them. What is committed is the JSON: nobody needs the builders to deploy.
A test holds the two equal, and runs every query.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

DIRECTORY = Path(__file__).parent.parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
GROUP, HOST = 'group="$group"', 'group="$group",host=~"$host"'
RATE = "[$__rate_interval]"
SERVED = 'haproxy_server_status{job="muster-edge"}'
"""Of proxies with servers, which are the models'."""


@dataclass(frozen=True)
class Chart:
    """One panel: queries with their legends, in a unit of Grafana's."""

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    says: str
    timeline: bool = False
    """States over time instead of lines."""


def quantiles(name: str) -> list[tuple[str, str]]:
    """Return the median and the 95th percentile of one of vLLM's histograms, over all ranks of a group."""
    rate = f"sum by (le) (rate(vllm:{name}_bucket{{{GROUP}}}{RATE}))"
    return [(f"histogram_quantile({part}, {rate})", f"p{round(100 * part)}") for part in (0.5, 0.95)]


def by_rank(name: str, *, rate: bool = False) -> list[tuple[str, str]]:
    """Return one of vLLM's figures for each DP rank of a group."""
    series = f"vllm:{name}{{{GROUP}}}"
    return [(f"sum by (engine) ({f'rate({series}{RATE})' if rate else series})", "DP {{engine}}")]


def by_gpu(name: str) -> list[tuple[str, str]]:
    return [(f"{name}{{{HOST}}}", "{{host}} GPU {{gpu}}")]


FLEET = {
    "Groups": [
        Chart("Phase", "none", [("muster_phase == 1", "{{group}} {{phase}}")], "What each group is doing.", True),
        Chart("Ready", "bool_on_off", [("muster_ready", "{{group}}")], "Every DP rank has shown that it is alive."),
        Chart(
            "Alerts that fire",
            "none",
            [('count by (severity) (ALERTS{alertstate="firing"}) or vector(0)', "{{severity}}")],
            "docs/runbook.md has a section for each.",
        ),
        Chart("Restarts in 24 h", "none", [("increase(muster_restarts_total[24h])", "{{group}}")], "After failures."),
    ],
    "Load": [
        Chart(
            "Tokens generated",
            "suffix:tok/s",
            [(f"sum by (group) (rate(vllm:generation_tokens_total{RATE}))", "{{group}}")],
            "Over all ranks.",
        ),
        Chart(
            "Requests",
            "none",
            [
                ("sum by (group) (vllm:num_requests_running)", "{{group}} running"),
                ("sum by (group) (vllm:num_requests_waiting)", "{{group}} waiting"),
            ],
            "Waiting ones have no room in the batch or the cache.",
        ),
        Chart(
            "GPU utilisation",
            "percentunit",
            [("avg by (group) (muster_gpu_utilization_ratio)", "{{group}}")],
            "Mean of the group's GPUs.",
        ),
        Chart(
            "Power",
            "watt",
            [("sum by (group) (muster_gpu_power_watts)", "{{group}}")],
            "All GPUs of a group.",
        ),
    ],
}
EDGE_JOB = 'job="muster-edge"'
FLEET["Edge"] = [
    Chart(
        "Endpoints up",
        "none",
        [(f"haproxy_backend_active_servers{{{EDGE_JOB}}} and on (proxy) {SERVED}", "{{host}} {{proxy}}")],
        "Of each model: by the word of its groups' guards.",
    ),
    Chart(
        "Answers to clients",
        "reqps",
        [
            (
                f'sum by (code) (rate(haproxy_frontend_http_responses_total{{{EDGE_JOB},proxy="edge"}}{RATE}))',
                "{{code}}",
            )
        ],
        "4xx are refusals of the edge, 5xx errors of the service.",
    ),
    Chart(
        "Requests waiting at the edge",
        "none",
        [(f"haproxy_backend_current_queue{{{EDGE_JOB}}} and on (proxy) {SERVED}", "{{host}} {{proxy}}")],
        "With edge_max_requests; 0 without.",
    ),
]
GROUP_ROWS = {
    "Latency": [
        Chart("Time to first token", "s", quantiles("time_to_first_token_seconds"), "From the request's arrival."),
        Chart("Inter-token time", "s", quantiles("inter_token_latency_seconds"), "Between two tokens of one answer."),
    ],
    "Throughput": [
        Chart("Tokens generated", "suffix:tok/s", by_rank("generation_tokens_total", rate=True), "By DP rank."),
        Chart("Prompt tokens", "suffix:tok/s", by_rank("prompt_tokens_total", rate=True), "By DP rank."),
        Chart(
            "Requests finished",
            "reqps",
            [(f"sum by (finished_reason) (rate(vllm:request_success_total{{{GROUP}}}{RATE}))", "{{finished_reason}}")],
            "By why they ended.",
        ),
    ],
    "Queue and cache": [
        Chart("Running", "none", by_rank("num_requests_running"), "Requests in the batch."),
        Chart("Waiting", "none", by_rank("num_requests_waiting"), "Requests without room."),
        Chart("Cache use", "percentunit", by_rank("kv_cache_usage_perc"), "Share of the KV cache that is taken."),
        Chart("Preemptions", "ops", by_rank("num_preemptions_total", rate=True), "Put back for want of cache."),
    ],
    "Life": [
        Chart(
            "Age of the last proof of life",
            "s",
            [(f"muster_proof_age_seconds{{{GROUP}}}", "DP {{dp_rank}}")],
            "Over 60 s the group is not ready.",
        ),
        Chart(
            "Canaries without an answer",
            "none",
            [(f"muster_canary_strikes{{{GROUP}}}", "DP {{dp_rank}}")],
            "Two in a row end the generation.",
        ),
    ],
}
HOST_ROWS = {
    "GPUs": [
        Chart("Utilisation", "percentunit", by_gpu("muster_gpu_utilization_ratio"), "Time with a kernel on the GPU."),
        Chart("Memory", "bytes", by_gpu("muster_gpu_memory_used_bytes"), "In use."),
        Chart("Power", "watt", by_gpu("muster_gpu_power_watts"), "Drawn."),
        Chart("Temperature", "celsius", by_gpu("muster_gpu_temperature_celsius"), "Of the GPU."),
        Chart("Clock", "hertz", by_gpu("muster_gpu_sm_clock_hertz"), "Of the multiprocessors."),
        Chart(
            "Throttling",
            "none",
            [(f"sum by (host, reason) (muster_gpu_throttled{{{HOST}}})", "{{host}} {{reason}}")],
            "GPUs whose clocks are lowered, by reason.",
        ),
    ],
    "Faults of GPUs": [
        Chart("Uncorrected ECC errors", "none", by_gpu("muster_gpu_ecc_uncorrected"), "Since the last reset."),
        Chart(
            "Row remaps",
            "none",
            [(f"sum by (host, state) (muster_gpu_row_remap{{{HOST}}})", "{{host}} {{state}}")],
            "Pending ones wait for a reset; failed ones for another GPU.",
        ),
        Chart(
            "NVLinks",
            "none",
            [(f"sum by (host, state) (muster_gpu_nvlinks{{{HOST}}})", "{{host}} {{state}}")],
            "All of them active on a healthy host.",
        ),
        Chart(
            "NVLink errors",
            "none",
            [(f"sum by (host, kind) (muster_gpu_nvlink_errors{{{HOST}}})", "{{host}} {{kind}}")],
            "Since the driver was loaded.",
        ),
        Chart(
            "Driver",
            "none",
            [(f"muster_driver_info{{{HOST}}}", "{{host}} {{version}}")],
            "One version on all hosts.",
        ),
    ],
    "Host": [
        Chart(
            "CPU",
            "percentunit",
            [(f'1 - avg by (host) (rate(node_cpu_seconds_total{{mode="idle",{HOST}}}{RATE}))', "{{host}}")],
            "Share of all cores in use.",
        ),
        Chart(
            "Memory available", "bytes", [(f"node_memory_MemAvailable_bytes{{{HOST}}}", "{{host}}")], "For programs."
        ),
        Chart(
            "Disk free",
            "percentunit",
            [
                (
                    f"node_filesystem_avail_bytes{{{HOST}}} / node_filesystem_size_bytes{{{HOST}}}",
                    "{{host}} {{mountpoint}}",
                )
            ],
            "An alert fires below 5 %.",
        ),
        Chart(
            "Network",
            "Bps",
            [
                (
                    f'sum by (host) (rate(node_network_receive_bytes_total{{device!="lo",{HOST}}}{RATE}))',
                    "{{host}} received",
                )
            ],
            "All interfaces; RDMA passes by the kernel and is not in it.",
        ),
    ],
}
RESTART_ROWS = {
    "What happened": [
        Chart("Phase", "none", [(f"muster_phase{{{GROUP}}} == 1", "{{phase}}")], "One after the other.", True),
        Chart("Time in this phase", "s", [(f"muster_phase_seconds{{{GROUP}}}", "seconds")], "Each tooth is a phase."),
        Chart("Restarts", "none", [(f"muster_restarts_total{{{GROUP}}}", "restarts")], "Since the head booted."),
    ],
    "Why, and how long still": [
        Chart(
            "Failures against the budget",
            "none",
            [
                (f"muster_aborts_in_window{{{GROUP}}}", "within an hour"),
                (f"muster_restart_budget{{{GROUP}}}", "budget"),
                (f"muster_failures_in_a_row{{{GROUP}}}", "in a row"),
            ],
            "One more than the budget, and nothing starts until an operator resumes the group.",
        ),
        Chart(
            "Silence of the hosts",
            "s",
            [(f"muster_member_silence_seconds{{{GROUP}}}", "{{host}}")],
            "A guard reports every 2 s; after 15 s the generation ends.",
        ),
        Chart(
            "Hosts that cannot start",
            "none",
            [(f"count by (host, cause) (muster_member_blocked{{{GROUP}}}) or vector(0)", "{{host}} {{cause}}")],
            "muster status has the sentence.",
        ),
    ],
}


def board(name: str, title: str, rows: dict[str, list[Chart]], *variables: str) -> dict[str, Any]:
    """Return one dashboard as Grafana provisions it."""
    built = (
        dashboards.Dashboard(title)
        .uid(f"muster-{name}")
        .tags(["muster"])
        .refresh("30s")
        .time("now-6h", "now")
        .with_variable(dashboards.DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    for variable in variables:
        labels = "muster_ready, group" if variable == "group" else 'up{job="muster-node",group="$group"}, host'
        query = (
            dashboards.QueryVariable(variable)
            .label(variable.capitalize())
            .datasource(SOURCE)
            .query(f"label_values({labels})")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
        built.with_variable(query.include_all(True).multi(True).all_value(".*") if variable == "host" else query)
    for row, charts in rows.items():
        built.with_row(dashboards.Row(row))
        for chart in charts:
            built.with_panel(_panel(chart, width=24 // min(len(charts), 3)))
    made: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True, indent=1).encode(built.build()))
    # What the builders of 10.1 add and the schemas from 10.2 on do not know.
    del made["style"]
    for variable in made["templating"]["list"]:
        del variable["id"]
    for panel in made["panels"]:
        if panel["type"] != "row":
            panel["options"] = panel["options"] or {}
    return made


def _panel(chart: Chart, width: int) -> Any:
    panel = (statetimeline if chart.timeline else timeseries).Panel().title(chart.title).description(chart.says)
    panel.unit(chart.unit).datasource(SOURCE).height(8).span(width)
    for letter, (expr, legend) in zip(ascii_uppercase, chart.queries, strict=False):
        panel.with_target(prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(letter))
    return panel


def every() -> dict[str, dict[str, Any]]:
    """Return file name -> dashboard."""
    return {
        "fleet.json": board("fleet", "muster: fleet", FLEET),
        "group.json": board("group", "muster: group", GROUP_ROWS, "group"),
        "hosts.json": board("hosts", "muster: hosts and GPUs", HOST_ROWS, "group", "host"),
        "restarts.json": board("restarts", "muster: restarts", RESTART_ROWS, "group"),
    }


if __name__ == "__main__":
    for name, made in every().items():
        (DIRECTORY / name).write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", encoding="utf-8")
