"""The plan as people read it: what it serves first, like hosts folded, notes last."""

from __future__ import annotations

import pytest

from muster.commands.plan_text import as_text
from muster.errors import Refusal
from tests.sample_plans import plan


def test_it_is_read_from_the_top() -> None:
    text = as_text(plan("kimi-k2-instruct", 2, "H200", allow_unpinned_code=True), ["inventories/h200-16.py"])
    lines = text.splitlines()
    assert lines[2].startswith(
        "serves contexts up to 131,072 tokens, 256 requests at once on each of 16 ranks, tool calls"
    )
    assert "the cache of each rank holds 572,800 tokens, 4 contexts of full length" in lines[2]
    assert "read inventories/h200-16.py" in lines
    places = [text.index(part) for part in ("\nmemory of one GPU", "\nh200-0 · head", "\norder of bring-up", "\nnotes")]
    assert places == sorted(places)
    assert "allow_unpinned_code is set" in lines[-1]


def test_what_hosts_share_is_printed_once() -> None:
    text = as_text(plan("kimi-k2-instruct", 16, "H200"))
    assert text.count("--enable-expert-parallel") == text.count("HF_HOME=") == 1
    block = text[text.index("h200-1 · headless") : text.index("h200-2 · headless")].splitlines()
    assert [line.strip() for line in block[1:] if line] == [
        "as h200-0, but:",
        "--headless",
        "--data-parallel-start-rank 8",
        "VLLM_HOST_IP=198.51.100.2",
    ]
    assert sum("/opt/muster/guard/" in line for line in text.splitlines()) == 1


def test_a_process_that_only_the_head_runs_is_named() -> None:
    text = as_text(plan("kimi-k2-instruct", 2, "H800"))
    block = text[text.index("h800-1 · ray-worker") : text.index("order of bring-up")]
    assert "ray: --address 198.51.100.1:6379" in block
    assert "ray: without --head" in block
    assert "no vllm" in block
    assert "256 requests at once" in text


def test_plain_units_of_other_names_are_shown() -> None:
    text = as_text(plan("kimi-k2-instruct", 2, "H200", supervisor="systemd"))
    assert "as h200-0, but:" in text


@pytest.mark.parametrize(
    ("count", "gpu", "settings", "says"),
    [
        (1, "H20", {}, "take more hosts, a smaller max_model_len"),
        (2, "H800", {"strategy": "dp-ep"}, "take strategy tp-pp, which fits"),
        (1, "H800", {"strategy": "tp-pp"}, "take dp-ep"),
    ],
)
def test_a_refusal_names_the_strategy_that_fits(count: int, gpu: str, settings: dict[str, str], says: str) -> None:
    with pytest.raises(Refusal) as refused:
        plan("kimi-k2-instruct", count, gpu, **settings)
    assert says in refused.value.fix
    assert "asked for" not in str(refused.value)


def test_the_default_follows_the_number_of_hosts() -> None:
    chosen = plan("kimi-k2-instruct", 1, "H800", allow_oversubscription=True)
    assert chosen.strategy == "dp-ep"
    assert "tp-pp, the recipe's default for H800, needs at least 2 hosts" in chosen.warnings[0]


def test_no_strategy_for_so_many_hosts_is_said_of_the_recipe() -> None:
    with pytest.raises(Refusal, match="no strategy of recipe kimi-k2-thinking takes 2 hosts") as refused:
        plan("kimi-k2-thinking", 2, "H200")
    assert "(tp, tp-dcp)" in refused.value.needed
