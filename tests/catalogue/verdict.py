"""What muster makes of a cell of the catalogue: exact, served with a difference, refused, or not offered there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.plan.types import HostPlan
from muster.spec import recipe
from muster.spec.host import HostSpec
from muster.spec.settings import Settings
from muster.spec.vllm_catalogue import Importer
from tests.catalogue import expected
from tests.catalogue.expected import Cell, Command

PRODUCTS = ("H100", "H200", "H800", "H20")
HOSTS = (1, 2, 4)
EXACT, DIFFERS, REFUSED, NOT_OFFERED = "exact", "served with a difference", "refused", "not offered"
FABRIC = "eth1"
VLLM = "0.32.0"
"""The newest release that the tests have a parser of."""

OWN_FLAGS = frozenset(
    {"port", "shutdown-timeout", "watchdog-config", "distributed-executor-backend", "master-port", "middleware"}
    | {"data-parallel-rpc-port", "data-parallel-size-local", "data-parallel-address", "data-parallel-start-rank"}
    | {"enable-ep-weight-filter"}
)
"""What a plan says besides, where the catalogue says nothing: none of it changes what the model answers."""
PLANNED_ENV = frozenset({"VLLM_ENGINE_READY_TIMEOUT_S"})
DEFAULTS = {"tensor-parallel-size": "1", "data-parallel-size": "1", "pipeline-parallel-size": "1"}
"""What vLLM takes where nobody says otherwise."""
DRAFT = "a draft model without a revision is off"
FILE = "a feature with a file of its own is off"
RANKS = "the catalogue asks for more GPUs than the hosts have"
ANSWERS = "the head answers for replicas on other hosts"
DROPPED = "a flag that this engine no longer needs"
RENAMED = "this engine names a value of a flag otherwise"
WORD = "flag and value stand in one word, which no parser takes"
DECIDED = "the plan decides a variable"
KNOWN = (DRAFT, FILE, RANKS, ANSWERS, DROPPED, RENAMED, WORD, DECIDED, expected.ENGINE, expected.INDEX)
"""Every difference that may be; a test refuses any other."""
EAGER = '{"backend": "eager"}'
TEMPLATE = ("chat-template", ".jinja")
TOOLS = frozenset({"enable-auto-tool-choice", "tool-call-parser", "reasoning-parser"})
GPUS_OF = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")


@dataclass(frozen=True)
class Verdict:
    """One cell's: the verdict, and why or by which differences."""

    cell: Cell
    verdict: str
    reasons: tuple[str, ...] = ()
    argvs: tuple[tuple[str, ...], ...] = ()
    """The planned command of each host, where it is served."""


def verdicts(
    name: str, raw: Mapping[str, Any], where: Mapping[str, Sequence[int]] | None = None, *, files: bool = False
) -> Iterator[Verdict]:
    """Yield the verdict on every cell of a model: variants, strategies, products, numbers of hosts.

    Args:
        name: of the model.
        raw: its YAML, all values as texts.
        where: product -> numbers of hosts; None for all.
        files: whether the templates and plugins that commands name are at hand.
    """
    at_hand = dict.fromkeys(expected.files(raw), "# text") if files else {}
    for variant in raw["variants"]:
        made = imported(name, raw, variant, at_hand)
        for strategy in expected.strategies(raw):
            for product, counted in (where or dict.fromkeys(PRODUCTS, HOSTS)).items():
                for hosts in expected.host_counts(strategy, counted):
                    yield verdict(Cell(raw, variant, strategy, product, hosts), made)


def verdict(cell: Cell, made: recipe.Recipe | Refusal) -> Verdict:
    """Return the verdict on one cell.

    Args:
        cell: of the catalogue.
        made: what the importer makes of its model, with the cell's variant as its own.
    """
    reason = expected.not_offered(cell)
    if reason:
        return Verdict(cell, NOT_OFFERED, (reason,))
    if isinstance(made, Refusal):
        return Verdict(cell, REFUSED, (why(made),))
    if cell.strategy not in made.strategies:
        left_out = "prefill and decode pools" if cell.strategy == "pd_cluster" else f"strategy {cell.strategy}"
        return Verdict(cell, REFUSED, (left_out,))
    hosts = [HostSpec(f"h{n}", f"198.51.100.{n + 1}", FABRIC, cell.product, 8) for n in range(cell.hosts)]
    settings = Settings(strategy=cell.strategy, variant=cell.variant, allow_unpinned_code=True, vllm_version=VLLM)
    try:
        plan = build_plan(made, hosts, settings)
    except Refusal as refusal:
        return Verdict(cell, REFUSED, (why(refusal),))
    found = dict.fromkeys(expected.installs(cell))
    for wanted, host in zip(expected.commands(cell), plan.hosts.values(), strict=True):
        found |= dict.fromkeys(differences(wanted, host, head=hosts[0].address, hosts=cell.hosts))
    if not expected.packages(cell) <= {*plan.release.requirements}:
        found[expected.PACKAGES] = None
    argvs = tuple(tuple(host.processes[-1].argv) for host in plan.hosts.values())
    return Verdict(cell, DIFFERS if found else EXACT, tuple(found), argvs)


def why(refusal: Refusal) -> str:
    """Return why something was refused, without names of models and files."""
    return refusal.found.rpartition(".yaml: ")[2].partition(": ")[0]


def differences(wanted: Command, host: HostPlan, *, head: str, hosts: int) -> Iterator[str]:
    """Yield the name of each difference between a command of the catalogue and what a plan runs on that host."""
    process = host.processes[-1]
    planned = expected.flags(process.argv[3:])
    if process.argv[2] != wanted.model:
        yield f"model {process.argv[2]}"
    asked = {name: value.replace(expected.HEAD, head) for name, value in wanted.flags.items()}
    for name in sorted({*asked, *planned}):
        one, other = asked.get(name, DEFAULTS.get(name)), planned.get(name, DEFAULTS.get(name))
        if not _same(one, other) and not (one is None and name in OWN_FLAGS):
            yield _name(name, one, other, asked, hosts)
    for name, value in wanted.env.items():
        # NCCL takes `=eth1` for that interface alone.
        if process.env.get(name, "").removeprefix("=") != value.replace(expected.FABRIC, FABRIC):
            yield DECIDED if name in PLANNED_ENV else f"{name}: {value!r}, planned {process.env.get(name)!r}"


def _same(one: str | None, other: str | None) -> bool:
    if one == other or one is None or other is None:
        return one == other
    if other.startswith("/etc/muster/"):  # a file of the recipe's, where the hosts have it
        return one.rpartition("/")[2] == other.rpartition("/")[2]
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def _name(flag: str, one: str | None, other: str | None, asked: Mapping[str, str], hosts: int) -> str:
    """Return which of the known differences one of a flag is, or the flag with both values."""
    files = [name for name, value in asked.items() if name.endswith("-plugin") or (name, value[-6:]) == TEMPLATE]
    if other is None and (flag in files or (flag in TOOLS and files)):
        return FILE
    if other is None and flag == "speculative-config" and '"model"' in (one or ""):
        return DRAFT
    if flag in GPUS_OF and math.prod(int(asked.get(name, "1")) for name in GPUS_OF) > hosts * expected.GPUS_PER_HOST:
        return RANKS
    if flag in ("headless", "data-parallel-hybrid-lb") and asked.get("data-parallel-size-local") == "1":
        return ANSWERS
    if other is None and flag == "disable-log-requests":
        return DROPPED
    if flag == "compilation-config" and json.loads(one or "{}") == {"use_inductor": False} and other == EAGER:
        return RENAMED
    if " " in flag or f"{flag} {other}" in asked:
        return WORD
    return f"--{flag}: {one!r}, planned {other!r}"


def imported(
    name: str, raw: Mapping[str, Any], variant: str, files: Mapping[str, str] | None = None
) -> recipe.Recipe | Refusal:
    """Return the recipe that is imported for a variant, or why none is."""
    where = f"models/{name}.yaml"
    try:
        made = Importer(raw, where, files).recipe({"path": where, "sha256": "0" * 64}, variant)
        return recipe.parse(made, where=where)
    except Refusal as refusal:
        return refusal


def counts(all_verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Return how many cells have each verdict."""
    return {kind: sum(each.verdict == kind for each in all_verdicts) for kind in (EXACT, DIFFERS, REFUSED, NOT_OFFERED)}
