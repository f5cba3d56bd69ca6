"""Sizes of a strategy on these hosts: how many ranks of each kind, and which hosts and GPUs they take.

One engine (TP x PP ranks) takes part of a host, a whole one, or an equal share of every host. What does not come out
even is refused with the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from muster.errors import Refusal
from muster.plan.topology import Topology
from muster.spec.sizes import LoadBalancing, Sizes
from muster.spec.strategy import Strategy


@dataclass(frozen=True)
class Layout:
    """Parallel sizes of one strategy on one topology.

    All are numbers of ranks: tensor (tp), pipeline (pp), data (dp), decode context (dcp) parallel; `dp_local` is the
    number of DP ranks on each host. `expert_parallel` spreads routed experts over tp x dp ranks. `engine_hosts` is the
    number of hosts that one engine spans.
    """

    strategy: str
    tp: int
    pp: int
    dp: int
    dcp: int
    dp_local: int
    expert_parallel: bool
    engine_hosts: int = 1
    load_balancing: LoadBalancing = "internal"

    @property
    def world_size(self) -> int:
        """Number of GPUs used."""
        return self.tp * self.pp * self.dp

    @property
    def host_gpus(self) -> int:
        """Number of GPUs used on each host."""
        return self.tp * self.pp * self.dp_local // self.engine_hosts

    @property
    def spans_hosts(self) -> bool:
        """Whether one engine takes several hosts."""
        return self.engine_hosts > 1

    @property
    def expert_ranks(self) -> int:
        """Number of ranks that the routed experts are divided over: whole ones with EP, slices of each without."""
        return self.tp * self.dp

    @property
    def label(self) -> str:
        """The usual short name, `TP8+PP2`, `TP4+DP2` or `DP16+EP`."""
        only_data = self.tp == self.pp == 1 and (self.dp > 1 or self.strategy == "dp-ep")
        parts = [] if only_data else [f"TP{self.tp}"]
        parts += [f"PP{self.pp}"] if self.pp > 1 else []
        parts += [f"DP{self.dp}"] if self.dp > 1 or only_data else []
        parts += ["EP"] if self.expert_parallel else []
        parts += [f"DCP{self.dcp}"] if self.pp == 1 and (self.dcp > 1 or self.strategy == "tp-dcp") else []
        return "+".join(parts)


def lay_out(
    name: str, strategy: Strategy, topology: Topology, *, dcp: int | None = None, expert_parallel: bool = True
) -> Layout:
    """Work out the parallel sizes of a strategy on these hosts.

    Args:
        name: of the strategy, for messages.
        strategy: as the recipe has it.
        topology: the hosts.
        dcp: decode context parallel size asked for, or None for the strategy's own.
        expert_parallel: whether experts are spread where the strategy spreads them.

    Raises:
        Refusal: sizes that do not take these hosts evenly, TP beyond NVLink that was not asked for, DCP not dividing
            TP, hosts that each answer for fewer than two ranks.
    """
    sizes, hosts, gpus = strategy.sizes, topology.hosts, topology.gpus_per_host
    pp = hosts if sizes.pp == "hosts" else sizes.pp
    tp = _tensor(name, sizes, pp, hosts, gpus)
    engine_hosts = _hosts_of_engine(name, sizes, tp, pp, hosts, gpus)
    local = tp * pp // engine_hosts
    if local > gpus:
        raise _uneven(name, f"TP{tp} x PP{pp} over {hosts} hosts takes {local} GPUs of each", f"at most {gpus}")
    dp = _data(name, sizes, local, engine_hosts, hosts, gpus)
    dp_local = dp // hosts if engine_hosts == 1 else 1
    if strategy.load_balancing == "hybrid" and (hosts < 2 or dp_local < 2):
        raise Refusal(
            f"strategy {name} has every host answer for its own ranks: {dp_local} on each of {hosts} hosts",
            needed="two hosts and two DP ranks on each, or more: vLLM takes anything else for another kind",
            fix="set load_balancing to internal in the recipe, or take a strategy with more engines on a host",
        )
    own = tp if strategy.decode_context_parallel or sizes.dcp == "tp" else sizes.dcp
    return Layout(
        strategy=name,
        tp=tp,
        pp=pp,
        dp=dp,
        dcp=_context(name, tp, own if dcp is None else dcp),
        dp_local=dp_local,
        expert_parallel=sizes.ep and expert_parallel,
        engine_hosts=engine_hosts,
        load_balancing=strategy.load_balancing,
    )


def _tensor(strategy: str, sizes: Sizes, pp: int, hosts: int, gpus: int) -> int:
    if sizes.tp == "host" or sizes.tp == "fit":  # a recipe on its GPUs has turned `fit` into a number where it can
        return gpus
    if sizes.tp == "all":
        if sizes.dp == "all" and hosts > 1:
            raise _uneven(strategy, "tp and dp both take all GPUs", "a number for one of them")
        ways = pp * (sizes.dp if isinstance(sizes.dp, int) else 1)
        if hosts * gpus % ways:
            raise _uneven(strategy, f"{hosts * gpus} GPUs do not divide over {ways} stages and replicas", "a divisor")
        return hosts * gpus // ways
    if sizes.tp > gpus:
        raise Refusal(
            f"strategy {strategy}: TP{sizes.tp} does not stay within a host of {gpus} GPUs",
            needed="tensor parallel within NVLink, unless a strategy asks for all hosts",
            fix=f"take hosts of {sizes.tp} GPUs, or write `tp: all` in the recipe",
        )
    return sizes.tp


def _hosts_of_engine(strategy: str, sizes: Sizes, tp: int, pp: int, hosts: int, gpus: int) -> int:
    if sizes.pp == "hosts":
        return hosts
    if tp * pp <= gpus:
        return 1
    # PP crosses hosts; TP stays inside NVLink unless it takes all hosts.
    if tp * pp % hosts or (sizes.tp != "all" and tp * pp // hosts % tp):
        raise _uneven(
            strategy,
            f"TP{tp} x PP{pp} does not give each of {hosts} hosts as many whole stages",
            "PP a multiple of the number of hosts",
        )
    return hosts


def _data(strategy: str, sizes: Sizes, local: int, engine_hosts: int, hosts: int, gpus: int) -> int:
    if engine_hosts > 1:
        if sizes.dp not in (1, "all"):
            raise _uneven(
                strategy,
                f"DP{sizes.dp} with engines that span {engine_hosts} hosts each",
                "DP 1 where an engine spans hosts: its replicas have not been shown to start",
            )
        return 1
    dp = hosts * (gpus // local) if sizes.dp == "all" else sizes.dp
    if dp % hosts:
        ranks = f"{dp} engine{'s' * (dp > 1)} of {local} GPU{'s' * (local > 1)}"
        raise _uneven(
            strategy, f"{ranks} for {hosts} hosts of {gpus} GPUs", f"as many engines on each of {hosts} hosts"
        )
    if dp // hosts * local > gpus:
        raise _uneven(strategy, f"{dp // hosts} engines of {local} GPUs on each host", f"at most {gpus} GPUs")
    return dp


def _context(strategy: str, tp: int, size: int) -> int:
    if tp == 1 and size > 1:
        raise Refusal(
            f"decode_context_parallel_size is {size} with strategy {strategy}",
            needed="1: DCP divides TP's GPUs, and TP is 1 here",
            fix="drop decode_context_parallel_size, or take a strategy with tensor parallel",
        )
    if tp % size:
        raise Refusal(
            f"decode_context_parallel_size is {size} with TP{tp}",
            needed=f"a divisor of {tp}: DCP reuses TP's GPUs",
            fix="set decode_context_parallel_size to a divisor, or 1 to turn it off",
        )
    return size


def _uneven(strategy: str, found: str, needed: str) -> Refusal:
    return Refusal(
        f"strategy {strategy}: {found}", needed=needed, fix="take another strategy, inventory, or sizes in the recipe"
    )
