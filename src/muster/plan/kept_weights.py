"""Weights that stay on the GPUs while the engine starts anew: which groups may keep them, and what each host gets.

On each host `vllm preload` holds the weights under a guard of its own, in a unit beside the engine's; docs/weights.md
has the design. The daemons' key names what they were loaded with: it is the digest of their plan, and the name of the
directory that the engine maps them from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from muster.errors import Refusal
from muster.on_host import mapped_router, places
from muster.plan import guard_files, preload_argv
from muster.plan.gpu_memory import Memory, Part
from muster.plan.group import Group
from muster.plan.types import File, Process
from muster.plan.vllm_versions import Version, version_of
from muster.spec.hardware import GIB
from muster.spec.settings import Settings
from muster.spec.shape import Shape
from muster.spec.strategy import FlagValue

SINCE: Version = (0, 33, 0)
EXPERTS: tuple[int, int] = (0, 33)
"""The releases that engines with experts were seen to run on, with their routers given the mapped tensor."""
PROCESS = "weights"
CONTEXT_BYTES = GIB
"""An allowance: a process that has loaded kernels and no longer computes."""


@dataclass(frozen=True)
class Kept:
    """What keeps a group's weights.

    Args:
        key: digest of all that the daemons run by; another one is another load.
        processes: host -> its `vllm preload`.
    """

    key: str
    processes: Mapping[str, Process]

    @property
    def sockets(self) -> str:
        """The directory of the daemons' sockets, as their command lines name it."""
        argv = next(iter(self.processes.values())).argv
        return argv[argv.index("--weight-cache-socket-dir") + 1]


def check(settings: Settings, flags: Mapping[str, FlagValue], shape: Shape | None, *, ray: bool) -> list[str]:
    """Refuse what cannot keep its weights; return what the plan says of the rest.

    Args:
        settings: of the group.
        flags: of recipe, settings and user.
        shape: of the model, where it is known.
        ray: whether Ray carries the engine across hosts.

    Raises:
        Refusal: naming what stands against it.
    """
    without = "set keep_weights = False"
    at = version_of(settings.vllm_version)
    if settings.supervisor != "guard":
        _refuse(
            "supervisor is systemd", "guards, which bring daemons and engine together again", f"drop it, or {without}"
        )
    if ray:
        _refuse(
            "executor is ray",
            "vLLM's own executor: Ray's workers are not the unit's",
            f"set executor to mp, or {without}",
        )
    if at < SINCE:
        needed = "vLLM 0.33.0 or newer: older ones have no `vllm preload`"
        _refuse(f"vllm_version is {settings.vllm_version}", needed, f"raise it, or {without}")
    for flag, why in (("enable-eplb", "experts move while it serves"), ("enable-sleep-mode", "it moves weights away")):
        if flags.get(flag, False) is not False:
            _refuse(f"--{flag} is planned", f"an engine without it: {why}", f"drop it, or {without}")
    if flags.get("load-format") == "ipc_cache":
        needed = "the format that the daemons load from disk; the engine's follows"
        _refuse("--load-format ipc_cache is planned", needed, "drop it: keep_weights plans it")
    _check_quantisation(settings, flags, shape, without)
    first = settings.keep_weights_port
    ports = f"their daemons listen on ports {first} to {first + 3}"
    notes = [f"weights stay on the GPUs while the engine starts anew; {ports}"]
    if shape is None or shape.n_routed_experts:
        if at[:2] != EXPERTS and not settings.allow_known_fault:
            needed = "vLLM 0.33: the only one that engines with experts were seen to run on with kept weights"
            _refuse(f"vllm_version is {settings.vllm_version}", needed, f"{without}, or set allow_known_fault")
        notes.append(
            "the experts' routers are given their mapped tensor by a plugin of the engine's: without it engines with"
            " experts die of an illegal memory access (ipc-cache-moe; docs/weights.md)"
        )
    return notes


def _check_quantisation(settings: Settings, flags: Mapping[str, FlagValue], shape: Shape | None, without: str) -> None:
    """Refuse what vLLM's `supports_pre_processed_weights` lacks, where the plan can tell."""
    if shape is None or settings.allow_known_fault:
        return
    bits = min(shape.linear_bits, shape.expert_bits if shape.n_routed_experts else shape.linear_bits)
    fix = f"{without}, or set allow_known_fault if this vLLM takes it"
    if bits < 8:
        needed = "bf16 or FP8: vLLM 0.33 maps no packed 4-bit weights of compressed-tensors, AWQ or GPTQ"
        _refuse(f"the weights have {bits:.3g} bits", needed, fix)
    if flags.get("quantization") is not None and bits >= 16:
        needed = "weights that are on disk as they run: vLLM maps none that it quantises while it loads"
        _refuse(f"--quantization {flags['quantization']} is planned of {bits:.3g}-bit weights", needed, fix)


def _refuse(found: str, needed: str, fix: str) -> None:
    raise Refusal(f"keep_weights is set, and {found}", needed=needed, fix=fix)


def beside(memory: Memory) -> Memory:
    """Return the memory table of an engine whose weights a daemon holds: they count once, and its context besides."""
    context = Part("weights' daemon", CONTEXT_BYTES, "CUDA context of the process that holds the weights above")
    return replace(memory, parts=(*memory.parts, context))


def keep(group: Group, processes: Mapping[str, tuple[Process, ...]]) -> Kept:
    """Return the daemons of every host of a group.

    Args:
        group: what all hosts share.
        processes: host -> its engine, as it would load the weights itself.
    """
    settings = group.settings
    bare: dict[str, Process] = {}
    for host, mine in processes.items():
        engine = mine[-1]
        env = {**engine.env, "HOME": places.weights_state(group.name)}
        bare[host] = Process(
            PROCESS, tuple(preload_argv.preload(engine.argv)), env, tuple(preload_argv.preload(engine.decided))
        )
    loaded = [[host, each.argv, sorted(each.env.items())] for host, each in sorted(bare.items())]
    text = json.dumps([group.release.id, guard_files.program()[0], settings.keep_weights_port, loaded])
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    sockets = f"{places.weights_run(group.name)}/{key[:12]}"
    words = tuple(preload_argv.listening(sockets, settings.keep_weights_port + 1, group.weights_health_port))
    daemons = {
        host: replace(each, argv=(*each.argv, *words), decided=(*each.decided, *words)) for host, each in bare.items()
    }
    return Kept(key, daemons)


def mapping(
    group: Group, processes: Mapping[str, tuple[Process, ...]], kept: Kept, *, experts: bool
) -> dict[str, tuple[Process, ...]]:
    """Return the processes of every host with an engine that maps what the daemons keep.

    Args:
        group, processes: as for `keep`.
        kept: the daemons.
        experts: whether the model may have some: the engine then gets the plugin for their routers.
    """
    result = {}
    for host, mine in processes.items():
        engine = mine[-1]
        # Its processes' titles would hide their environment, by which the daemons' guard knows who maps what they held.
        env = {**engine.env, "SPT_NOENV": "1"}
        if experts:
            env["PYTHONPATH"] = ":".join(filter(None, [plugins(group), env.get("PYTHONPATH")]))
        result[host] = (*mine[:-1], replace(engine, argv=preload_argv.mapped(engine.argv, kept.sockets), env=env))
    return result


def plugins(group: Group) -> str:
    """Return the directory of the engine's plugin for routers, for PYTHONPATH."""
    return f"{group.config}/plugins"


def plugin_files(group: Group) -> dict[str, File]:
    """Return the plugin as vLLM finds one: a module, and a distribution that names it."""
    return dict(_plugin_files(plugins(group)))


@lru_cache(maxsize=16)
def _plugin_files(directory: str) -> tuple[tuple[str, File], ...]:
    name = f"muster_{mapped_router.__name__.rsplit('.', 1)[1]}"
    about = f"{directory}/{name}-1.dist-info"
    return (
        (f"{directory}/{name}.py", File(Path(mapped_router.__file__).read_text(encoding="utf-8"))),
        (f"{about}/METADATA", File(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1\n")),
        (f"{about}/entry_points.txt", File(f"[vllm.general_plugins]\n{name} = {name}:register\n")),
    )
