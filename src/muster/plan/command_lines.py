"""The command lines of `vllm serve` and `ray start`: the only place where their flags are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from muster.plan.layout import Layout
from muster.plan.topology import Node, Topology
from muster.spec.strategy import FlagValue


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
