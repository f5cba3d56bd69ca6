"""The only place where vLLM's and Ray's flags are spelled, by the vLLM version that will run them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muster.errors import Refusal
from muster.plan.layout import Layout
from muster.plan.topology import Node, Topology
from muster.spec.recipe import FlagValue

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Gone:
    """A flag that a version of vLLM no longer takes."""

    since: Version
    instead: str | None
    """The flag that replaces it, or None to drop it."""
    why: str


# Read from the wheels 0.12.0, 0.20.2, 0.23.0, 0.26.0, 0.32.0 and 0.33.0.
GONE: Mapping[str, Gone] = {
    "disable-log-requests": Gone((0, 20, 0), None, "request logging is off by default now"),
    "swap-space": Gone((0, 20, 0), None, "the engine no longer swaps the cache"),
    "task": Gone((0, 20, 0), "runner", "renamed"),
}
SINCE: Mapping[str, Version] = {
    "nnodes": (0, 12, 0),
    "headless": (0, 12, 0),
    "shutdown-timeout": (0, 20, 0),
    "enable-ep-weight-filter": (0, 20, 0),
    "numa-bind": (0, 20, 0),
    "watchdog-config": (0, 33, 0),
}
OPTIONAL: Mapping[str, str] = {
    "shutdown-timeout": "a plain unit that is stopped drops its requests",
    "watchdog-config": "the bundle of a stall has no stacks",
}
"""Flags that a default of muster asks for: an older version goes without, and the plan says what that means."""
FP8_CACHE_WITH_DCP: Version = (0, 26, 0)
SECURITY_FLOOR: Version = (0, 32, 0)


def version_of(text: str) -> Version:
    """Return (major, minor, patch) of a version; `rc2`, or a local part such as `+cpu`, does not matter."""
    numbers = re.findall(r"(?:^|(?<=\.))\d+", text.partition("+")[0])[:3]
    major, minor, patch = (int(number) for number in [*numbers, "0", "0", "0"][:3])
    return major, minor, patch


def check_version(version: str, floor: str, *, recipe: str) -> None:
    """Refuse a vLLM older than the recipe's floor.

    Raises:
        Refusal: with both versions.
    """
    if version_of(version) < version_of(floor):
        raise Refusal(
            f"vllm_version is {version} with recipe {recipe}",
            needed=f"vLLM {floor} or newer",
            fix=f"set vllm_version to {floor} or newer, or drop the setting",
        )


def translate(flags: Mapping[str, FlagValue], version: str) -> tuple[dict[str, FlagValue], list[str]]:
    """Return the flags this version takes, and a line for each that was dropped, renamed or is missing.

    Raises:
        Refusal: a flag this version does not have yet.
    """
    at, kept, notes = version_of(version), dict[str, FlagValue](), list[str]()
    for name, value in flags.items():
        gone = GONE.get(name)
        if gone and at >= gone.since:
            if gone.instead:
                kept[gone.instead] = value
                notes.append(f"--{name} is --{gone.instead} in vLLM {version}")
            else:
                notes.append(f"--{name} dropped: vLLM {version} does not take it ({gone.why})")
            continue
        since = SINCE.get(name)
        if since and at < since and name in OPTIONAL:
            notes.append(f"--{name} left out: vLLM {version} does not have it yet; {OPTIONAL[name]}")
            continue
        if since and at < since:
            raise Refusal(
                f"--{name} planned for vLLM {version}",
                needed=f"vLLM {'.'.join(map(str, since))} or newer for this flag",
                fix="raise vllm_version, or drop the setting that asks for it",
            )
        kept[name] = value
    return kept, notes


def check_flags(flags: Mapping[str, FlagValue], layout: Layout, version: str) -> None:
    """Refuse flag combinations that this version is known to stop at.

    Raises:
        Refusal: fp8 cache with decode context parallel before 0.26.
    """
    fp8 = str(flags.get("kv-cache-dtype", "auto")).startswith("fp8")
    if fp8 and layout.dcp > 1 and version_of(version) < FP8_CACHE_WITH_DCP:
        raise Refusal(
            f"--kv-cache-dtype fp8 with decode context parallel size {layout.dcp} on vLLM {version}",
            needed="vLLM 0.26 or newer: older ones stop at this combination",
            fix="raise vllm_version, or set decode_context_parallel_size to 1",
        )


def spell(flags: Mapping[str, FlagValue]) -> list[str]:
    """Return flags as argv tokens; True is a bare flag, False leaves it out."""
    argv: list[str] = []
    for name, value in flags.items():
        if value is False:
            continue
        argv.append(f"--{name}")
        if value is not True:
            argv.append(str(value))
    return argv


def serve_argv(
    node: Node,
    topology: Topology,
    layout: Layout,
    *,
    model: str,
    flags: Mapping[str, FlagValue],
    extra_args: Sequence[str],
    ray: bool,
    port: int,
    rpc_port: int,
    master_port: int,
    served_model_name: str | None,
    middleware: str | None = None,
) -> list[str]:
    """Return the `vllm serve` command of one node, as one would type it.

    Flags are equal on all ranks but for the rank and `--headless`: a configuration hash must match across ranks.
    Without hybrid load balancing the head gets no start rank: even 0 would turn it on and refuse headless peers.

    Args:
        node: the host that runs it.
        topology: all hosts.
        layout: parallel sizes.
        model: model id or directory; vLLM wants it before any flag.
        flags: recipe's and settings' flags, already translated for the version.
        extra_args: user's own tokens, last.
        ray: whether Ray carries an engine across hosts, rather than vLLM itself.
        port, rpc_port, master_port: TCP ports.
        served_model_name: name in the API, or None for the model id.
        middleware: class, by its module, that every request passes first; None for none.
    """
    argv = ["vllm", "serve", model]
    hybrid = layout.load_balancing == "hybrid"
    if hybrid:
        argv.append("--data-parallel-hybrid-lb")
    elif not node.is_head:
        argv.append("--headless")
    if layout.dp > 1 and (hybrid or not node.is_head):
        argv += ["--data-parallel-start-rank", str(node.node_rank * layout.dp_local)]
    argv += ["--port", str(port)]
    if served_model_name:
        argv += ["--served-model-name", served_model_name]
    if middleware:
        argv += ["--middleware", middleware]
    if layout.tp > 1:
        argv += ["--tensor-parallel-size", str(layout.tp)]
    if layout.pp > 1:
        argv += ["--pipeline-parallel-size", str(layout.pp)]
    if layout.spans_hosts:
        if ray:
            argv += ["--distributed-executor-backend", "ray"]
        else:
            argv += ["--distributed-executor-backend", "mp", "--nnodes", str(topology.hosts)]
            argv += ["--node-rank", str(node.node_rank)]
            argv += ["--master-addr", topology.head.host.address, "--master-port", str(master_port)]
    if layout.dcp > 1:
        argv += ["--decode-context-parallel-size", str(layout.dcp)]
    if layout.dp > 1:
        argv += ["--data-parallel-size", str(layout.dp), "--data-parallel-size-local", str(layout.dp_local)]
        argv += ["--data-parallel-address", topology.head.host.address]
        argv += ["--data-parallel-rpc-port", str(rpc_port)]
    if layout.expert_parallel:
        argv.append("--enable-expert-parallel")
    return [*argv, *spell(flags), *extra_args]


RAY_PORTS = {
    "--node-manager-port": 6380,
    "--object-manager-port": 6381,
    "--runtime-env-agent-port": 6382,
    "--dashboard-agent-grpc-port": 6383,
    "--dashboard-agent-listen-port": 6384,
    "--metrics-export-port": 6385,
    "--min-worker-port": 10002,
    "--max-worker-port": 19999,
}


def ray_argv(node: Node, topology: Topology, *, port: int) -> list[str]:
    """Return the `ray start` command of one node: ports pinned, dashboard off, in the foreground.

    The jobs API is remote code execution by design (CVE-2023-48022), so the dashboard stays off.
    """
    head = topology.head.host.address
    where = ["--head", "--port", str(port)] if node.is_head else ["--address", f"{head}:{port}"]
    argv = ["ray", "start", *where, "--block", "--node-ip-address", node.host.address]
    argv += ["--num-gpus", str(node.host.gpus), "--disable-usage-stats"]
    if node.is_head:
        argv.append("--include-dashboard=false")
    for flag, number in RAY_PORTS.items():
        argv += [flag, str(number)]
    return argv


def common_env(
    node: Node, topology: Topology, *, cache: str, config_root: str, hf_home: str, ready_timeout: int
) -> dict[str, str]:
    """Return the environment every engine process of one node gets.

    Args:
        node, topology: the host and its group.
        cache: persisted directory for compiled kernels and autotune results.
        config_root: vLLM's configuration directory.
        hf_home: where the hub's files are kept.
        ready_timeout: seconds; with several API servers the engine's clock runs while weights load.
    """
    env = {
        "VLLM_HOST_IP": node.host.address,
        "VLLM_CACHE_ROOT": cache,
        "VLLM_CONFIG_ROOT": config_root,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(ready_timeout),
        "HF_HOME": hf_home,
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if node.host.interface and topology.hosts > 1:
        env["GLOO_SOCKET_IFNAME"] = node.host.interface
        # Without `=` NCCL takes a prefix: eth1 would take eth10 in. Gloo takes the whole name.
        env["NCCL_SOCKET_IFNAME"] = f"={node.host.interface}"
    return env


def watchdog_config(stall_timeout: int, directory: str) -> str:
    """Return --watchdog-config: the engine dumps the stacks of a process that stands still before the guard ends it.

    Its clock starts with the last step, as the guard's does, and is read every `check_interval`.

    Args:
        stall_timeout: seconds after which the guard ends an engine without progress.
        directory: where the dumps go.
    """
    seconds = {"timeout": max(1, stall_timeout // 2), "check_interval": max(1, stall_timeout // 12)}
    return json.dumps({**seconds, "dump_dir": directory}, separators=(",", ":"))


def ray_env(topology: Topology, *, port: int, token_file: str) -> dict[str, str]:
    """Return what Ray and the engine that joins it need: the cluster's address, and token authentication."""
    return {
        "RAY_ADDRESS": f"{topology.head.host.address}:{port}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token_file,
    }


READ = (
    "attention-backend",
    "code-revision",
    "enable-auto-tool-choice",
    "gpu-memory-utilization",
    "hf-config-path",
    "kv-cache-dtype",
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-seqs",
    "no-trust-remote-code",
    "revision",
    "speculative-config",
    "tokenizer",
    "tokenizer-revision",
    "trust-remote-code",
)
"""Flags whose values the plan reads in the user's words. No other flag of vLLM's is the beginning of one of them."""


def values_of(words: Sequence[str]) -> dict[str, str]:
    """Return flag -> value of command-line words, as vLLM's parser reads them: `--a b`, `--a=b`, `_` for `-`.

    The parser also takes an unambiguous beginning of a name; those of `READ` are written out. A flag without a value
    has the value "".
    """
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            name = _written_out(flag.replace("_", "-"))
            found.pop(name, None)  # the last one wins, and stands last
            found[name] = value
            if equals:
                name = ""
        elif name:
            found[name] = word
            name = ""
    return found


def _written_out(name: str) -> str:
    beginning, dot, field = name.partition(".")
    flags = (
        [flag for flag in READ if flag.startswith(beginning)] if len(beginning) > 2 and beginning not in READ else []
    )
    return f"{flags[0]}{dot}{field}" if len(flags) == 1 else name
