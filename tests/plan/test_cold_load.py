"""How long a cold load is to take: what a host's ranks read, over what its disk gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from muster.plan import cold_load
from muster.plan.cold_load import ColdLoad
from muster.plan.layout import Layout
from muster.spec.shape import Shape
from tests import sample_plans

RATE = {"one": 2 * 10**9, "all": 62 * 10**8, "readers": 8, "age": 300}
DENSE = Shape(num_hidden_layers=61, hidden_size=1024, intermediate_size=4096, num_attention_heads=8, vocab_size=1000)
EXPERTS = Shape(
    num_hidden_layers=60, hidden_size=1024, intermediate_size=4096, num_attention_heads=8, vocab_size=1000,
    n_routed_experts=256, moe_intermediate_size=2048, weight_bytes=10**12,
)  # fmt: skip


def layout(**more: Any) -> Layout:
    return Layout(
        **{"strategy": "s", "tp": 8, "pp": 1, "dp": 1, "dcp": 1, "dp_local": 1, "expert_parallel": False} | more
    )


def test_the_arithmetic_is_that_of_the_issue() -> None:
    load = ColdLoad(1.0, 8, 8, bytes=512 * 10**9)
    assert load.seconds(RATE) == pytest.approx(82.6, abs=0.1)
    assert load.line(RATE) == "disk 6.2 GB/s, 512 GB for 8 GPUs: at least 83 s"
    drafted = replace(load, draft=10 * 10**9)
    assert drafted.line(RATE) == "disk 6.2 GB/s, 522 GB for 8 GPUs: at least 84 s"


def test_a_network_has_no_expected_time() -> None:
    load = ColdLoad(1.0, 8, 8, bytes=512 * 10**9)
    rate = {**RATE, "network": "nfs4"}
    assert load.seconds(rate) is None
    assert load.line(rate) == "nfs4 6.2 GB/s; vLLM fetches such files ahead with many threads"


@pytest.mark.parametrize(
    ("sizes", "share", "streams"),
    [
        (layout(), 1.0, 8),
        (layout(pp=2, engine_hosts=2), 31 / 61, 8),  # the first stage has 31 of 61 layers
        (layout(tp=4, pp=4, engine_hosts=2), 32 / 61, 8),
        (layout(tp=16, engine_hosts=2), 1.0, 8),  # a slice of rows has a part of every page
        (layout(tp=1, dp=16, dp_local=8), 1.0, 1),  # each rank reads the same bytes: one disk read for all
        (layout(tp=2, dp=4, dp_local=4), 1.0, 2),
        (layout(tp=4, pp=2), 1.0, 8),
    ],
)
def test_what_a_host_reads_of_a_dense_model(sizes: Layout, share: float, streams: int) -> None:
    load = cold_load.of(DENSE, sizes, {})
    assert (load.share, load.streams) == (pytest.approx(share), streams)


def test_experts_of_other_hosts_are_not_read() -> None:
    two = cold_load.of(EXPERTS, layout(tp=1, dp=16, dp_local=8, expert_parallel=True), {})
    one = cold_load.of(EXPERTS, layout(tp=1, dp=8, dp_local=8, expert_parallel=True), {})
    assert (one.share, one.streams, one.bytes) == (1.0, 8, 10**12)
    assert 0.5 < two.share < 0.52  # nearly all of it are experts
    assert two.bytes == int(10**12 * two.share)
    assert cold_load.of(None, layout(tp=1, dp=16, dp_local=8, expert_parallel=True), {}).share == 1.0  # at most


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ({"load-format": "dummy"}, "no weights are loaded"),
        ({"load-format": "runai_streamer"}, "another way"),
        ({"safetensors-load-strategy": "prefetch"}, "another way"),
        ({"model-loader-extra-config": '{"enable_multithread_load": true}'}, "another way"),
    ],
)
def test_a_loader_of_another_kind_has_no_expected_time(flags: dict[str, str], word: str) -> None:
    load = cold_load.of(EXPERTS, layout(), flags)
    assert load.seconds(RATE) is None
    assert word in load.line(RATE)
    assert cold_load.of(EXPERTS, layout(), {"load-format": "auto"}).seconds(RATE) == pytest.approx(10**12 / 6.2e9)


def test_a_rank_alone_has_the_rate_of_one_reader() -> None:
    assert ColdLoad(1.0, 1, 2, bytes=4 * 10**9).seconds(RATE) == 2.0


def test_the_slowest_host_is_named_with_those_that_are_not_measured() -> None:
    load = ColdLoad(1.0, 8, 8, bytes=62 * 10**9)
    assert cold_load.slowest(load, {"a": None}) == ""
    line = cold_load.slowest(load, {"a": RATE, "b": {**RATE, "all": 31 * 10**8}, "c": None})
    assert line == (
        "a cold load: disk 3.1 GB/s, 62 GB for 8 GPUs: at least 20 s"
        " (b is the slowest of 2; measured 5 min ago; not measured: c)"
    )
    assert "how much is read is not known" in cold_load.slowest(None, {"a": RATE})
    assert cold_load.measured(load, RATE) == (
        "reads weights at 6.2 GB/s with 8 readers, 2 with one;"
        " a cold load: disk 6.2 GB/s, 62 GB for 8 GPUs: at least 10 s"
    )


def test_a_plan_knows_what_its_hosts_read() -> None:
    plan = sample_plans.plan("kimi-k2-instruct", 2, "H200")
    assert plan.load is not None
    assert plan.load.gpus == 8
    assert 0.5 * plan.weight_bytes < plan.load.bytes < plan.weight_bytes
