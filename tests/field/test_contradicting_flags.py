"""Flags that contradict the plan stop no group (reported: vllm-ascend#14082, srt-slurm#277, sparkring#195)."""

from __future__ import annotations

import pytest

from muster.errors import Refusal
from tests.sample_plans import plan


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["--api-server-count", "1"], "api_server_count"),
        (["--data-parallel-hybrid-lb"], "load_balancing"),
        (["--api-key", "sk-example"], "api_key_file"),
        (["--api-key=sk-example"], "api_key_file"),
    ],
)
def test_it_is_refused_with_the_setting_to_use(words: list[str], instead: str) -> None:
    with pytest.raises(Refusal, match=instead) as refusal:
        plan("kimi-k2-instruct", 2, "H200", extra_args=words)
    assert "sk-example" not in str(refusal.value)
