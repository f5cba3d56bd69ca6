"""The cases of the run on real GPUs: hosts, recipe, strategy, settings and load of each, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from muster.bench.scenario import Scenario
from muster.spec.host import HostSpec

SHORT = Scenario("short", "", {"dataset-name": "random", "random-input-len": 1000, "random-output-len": 512,
                              "request-rate": 10000, "num-prompts": 8, "ignore-eos": True})  # fmt: skip
LONG = Scenario("long", "", {"dataset-name": "random", "random-input-len": 8000, "random-output-len": 400,
                             "request-rate": 10000, "num-prompts": 32, "ignore-eos": True})  # fmt: skip
# More requests than TP2's cache holds at once, fewer than twice that: what does not fit waits in the queue.
QUEUES = Scenario("queues", "", {"dataset-name": "random", "random-input-len": 8000, "random-output-len": 1000,
                                 "request-rate": 10000, "num-prompts": 96, "ignore-eos": True})  # fmt: skip
QUEUES_CACHE = ("--kv-cache-memory-bytes", "1400000000")
"""About 200,000 tokens with TP2: 22 of those requests."""

# Machines that others share forbid NVLink multicast; none of these changes what is planned.
SHARED_ENV = {
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "NVSHMEM_DISABLE_NVLS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "PYTORCH_SKIP_CUDNN_COMPATIBILITY_CHECK": "1",  # the machine's cuDNN may be older than torch's own
}
SHARED_ARGS = ("--disable-custom-all-reduce",)
COMPILATION = '{"pass_config":{"fuse_allreduce_rms":false}}'
PIECEWISE = '{"cudagraph_mode":"PIECEWISE","pass_config":{"fuse_allreduce_rms":false}}'
FP8 = ("--quantization", "fp8")
FP8_CACHE = ("--kv-cache-dtype", "fp8")
FIXED_CACHE = ("--kv-cache-memory-bytes", str(2 << 30))
# For cases side by side: the start checks that this share of the memory is free, and the cache is fixed.
OVER = {"allow_oversubscription": True}
SMALL = OVER | {"gpu_memory_utilization": 0.1}


@dataclass(frozen=True)
class Case:
    """One plan to bring up and measure.

    Args:
        name: of the case and of its group.
        recipe, strategy: as in `muster plan`.
        hosts: (number of hosts, GPUs of each); on one machine each sees GPUs of its own.
        settings: further settings of muster.
        args: further words for `vllm serve`, besides those of a shared machine.
        weights: `none` (dummy), `fp8` (random ones, written in FP8 with block scales), or `disk` (so many layers of
            random bf16 blocks on the local disk, tens of GB a GPU).
        dense: a dense model in place of the K2-shaped one.
        loads: what is run against it.
        compilation: vLLM's --compilation-config.
        layers: so many layers of Kimi-K2's own width; 0: the small model.
    """

    name: str
    recipe: str
    strategy: str
    hosts: tuple[int, int] = (1, 2)
    settings: Mapping[str, Any] = field(default_factory=dict)
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    weights: str = "none"
    dense: bool = False
    loads: tuple[Scenario, ...] = (SHORT, LONG)
    compilation: str = COMPILATION
    layers: int = 0

    def specs(self, gpu: str = "H200") -> list[HostSpec]:
        """Return the hosts; on one machine each gets a loopback address of its own."""
        count, gpus = self.hosts
        return [HostSpec(f"gpu-{n}", f"127.0.0.{n + 2}", "lo", gpu, gpus) for n in range(count)]


def _fp8(name: str, strategy: str, *args: str, **other: Any) -> Case:
    words = (*args, *FIXED_CACHE)
    return Case(name, "kimi-k2-thinking", strategy, settings=SMALL, args=words, **({"loads": (SHORT,)} | other))


def _real(name: str, strategy: str, **other: Any) -> Case:
    env = {"VLLM_USE_DEEP_GEMM": "0"}  # its warm-up compiles 1800 kernels
    return _fp8(name, strategy, *FP8_CACHE, weights="fp8", env=env, loads=(), **other)


def _serving(name: str, strategy: str, *args: str, **other: Any) -> Case:
    """A group that serves many: FP8 weights, long contexts, equal bytes of cache; what differs is the cache and DCP."""
    settings = {**SMALL, "max_num_seqs": 256, "max_num_batched_tokens": 8192, **other.pop("settings", {})}
    words = (*FP8, *args, *QUEUES_CACHE)
    return Case(name, "kimi-k2-thinking", strategy, settings=settings, args=words, loads=(SHORT, QUEUES), **other)


THINKING, INSTRUCT = "kimi-k2-thinking", "kimi-k2-instruct"
CASES = {
    case.name: case
    for case in (
        Case("tp", THINKING, "tp"),
        Case("tp-dcp", THINKING, "tp-dcp"),
        Case("tp-queues", THINKING, "tp", settings=SMALL, args=QUEUES_CACHE, loads=(QUEUES,)),
        Case("tp-dcp-queues", THINKING, "tp-dcp", settings=SMALL, args=QUEUES_CACHE, loads=(QUEUES,)),
        Case("dp-ep", INSTRUCT, "dp-ep", hosts=(2, 1), settings=SMALL, args=FIXED_CACHE, loads=(SHORT, LONG)),
        Case("dense-tp", THINKING, "tp", settings=SMALL, args=FIXED_CACHE, dense=True),
        # For a machine with one GPU: NCCL takes no two ranks on one, and dense data parallel ranks need none.
        Case("tp-one", THINKING, "tp", hosts=(1, 1)),
        Case(
            "dp-shared",
            INSTRUCT,
            "dp-ep",
            hosts=(2, 1),
            settings={"gpu_memory_utilization": 0.4, "allow_oversubscription": True, "expert_parallel": False},
            args=("--kv-cache-memory-bytes", str(40 << 30)),
            dense=True,
        ),
        *(
            Case(
                f"tp-pp-{executor}",
                INSTRUCT,
                "tp-pp",
                hosts=(2, 1),
                settings=SMALL | {"executor": executor},
                args=FIXED_CACHE,
                loads=(SHORT,),
            )
            for executor in ("mp", "ray")
        ),
        # A restart with kept weights beside one that loads them: `--set keep_weights=true`, and without.
        Case("dp-dense", INSTRUCT, "dp-ep", (2, 1), SMALL | {"expert_parallel": False}, FIXED_CACHE, dense=True),
        Case(
            "disk-dense",
            INSTRUCT,
            "dp-ep",
            (2, 1),
            OVER | {"expert_parallel": False},
            FIXED_CACHE,
            weights="disk",
            dense=True,
            layers=33,
        ),
        Case("disk-moe", INSTRUCT, "dp-ep", (2, 1), OVER, FIXED_CACHE, weights="disk", layers=3),
        # For a machine with four GPUs: two hosts of two, the smallest that has every axis of the 16-GPU commands.
        Case("dp-ep-4", INSTRUCT, "dp-ep", hosts=(2, 2), settings=SMALL, args=FIXED_CACHE),
        *(
            Case(
                name,
                INSTRUCT,
                "tp-pp",
                hosts=(2, 2),
                settings=SMALL | settings,
                args=FIXED_CACHE,
                loads=(SHORT,),
                compilation=compilation,
            )
            for name, settings, compilation in (
                ("tp-pp-4-mp", {"executor": "mp", "decode_context_parallel_size": 1}, COMPILATION),
                ("tp-pp-4-mp-dcp", {"executor": "mp"}, PIECEWISE),
                ("tp-pp-4-mp-dcp-full", {"executor": "mp"}, COMPILATION),
                ("tp-pp-4-ray-dcp", {"executor": "ray"}, PIECEWISE),
            )
        ),
        # Why FP8 weights with an FP8 cache fail under DCP: one change at a time.
        _fp8("fp8-cache-dcp", "tp-dcp", *FP8_CACHE),
        _fp8("fp8-weights-dcp", "tp-dcp", *FP8),
        _fp8("fp8-both-dcp", "tp-dcp", *FP8, *FP8_CACHE),
        _fp8("fp8-both-tp", "tp", *FP8, *FP8_CACHE),
        _fp8("fp8-both-dcp-eager", "tp-dcp", *FP8, *FP8_CACHE, "--enforce-eager", env={"CUDA_LAUNCH_BLOCKING": "1"}),
        _fp8("fp8-both-dcp-piecewise", "tp-dcp", *FP8, *FP8_CACHE, compilation=PIECEWISE, loads=()),
        _real("fp8-real-dcp", "tp-dcp"),
        _real("fp8-real-dcp-piecewise", "tp-dcp", compilation=PIECEWISE),
        _real("fp8-real-tp", "tp"),
        # What the plan makes of an FP8 cache with DCP, what else would run, and the fault that it avoids.
        _serving("serve-planned", "tp-dcp", *FP8_CACHE),
        _serving("serve-bf16-cache", "tp-dcp"),
        _serving("serve-no-dcp", "tp", *FP8_CACHE),
        # The same with the flags of the published command, one request at a time: here FlashMLA died 5 times of 5.
        *(
            Case(
                name,
                THINKING,
                "tp-dcp",
                settings=SMALL | {"max_model_len": 2048, "max_num_seqs": 1, "max_num_batched_tokens": 1024} | settings,
                args=("--dtype", "bfloat16", *FP8, *FP8_CACHE, *FIXED_CACHE),
                loads=(SHORT,),
            )
            for name, settings in (("published-planned", {}), ("published-fault", {"allow_known_fault": True}))
        ),
        _serving("fault-flashmla-dcp", "tp-dcp", *FP8_CACHE, settings={"allow_known_fault": True}),
    )
}
PROOF = ("tp@empty", "tp", "tp-dcp")
"""What runs alone when no case is named; `@empty` removes the group's caches first."""


def sized(gpus: int) -> dict[str, Case]:
    """Return the seeds' commands on so many GPUs of one machine, `NAME/GPUS`; two hosts have half of them each.

    `tp` and `tp-dcp` have a model of Kimi-K2's width that takes about 34 GiB of each GPU, and all of the memory; the
    others leave each other room.
    """
    halves = (2, gpus // 2)

    def small(name: str, strategy: str, **settings: Any) -> Case:
        return Case(name, INSTRUCT, strategy, halves, SMALL | settings, FIXED_CACHE, loads=(SHORT,))

    cases = (
        *(Case(name, THINKING, name, hosts=(1, gpus), layers=1 + gpus, loads=(LONG,)) for name in ("tp", "tp-dcp")),
        *(
            Case(f"{name}-queues", THINKING, name, hosts=(1, gpus), settings=SMALL, args=QUEUES_CACHE, loads=(QUEUES,))
            for name in ("tp", "tp-dcp")
        ),
        *(small(f"tp-pp-{executor}", "tp-pp", executor=executor) for executor in ("mp", "ray")),
        small("dp-ep", "dp-ep"),
    )  # fmt: skip
    return {f"{case.name}/{gpus}": replace(case, name=f"{case.name}-of-{gpus}") for case in cases}


def find(name: str) -> Case:
    """Return a case by its name, or one of `sized` by `NAME/GPUS`.

    Raises:
        KeyError: there is none.
    """
    _, _, gpus = name.partition("/")
    return (sized(int(gpus)) if gpus else CASES)[name]
