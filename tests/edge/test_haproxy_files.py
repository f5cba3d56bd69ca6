"""HAProxy's files whole, against tests/golden/edge; `MUSTER_WRITE_GOLDEN=1 pytest` rewrites them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from muster.edge import haproxy_files
from muster.edge.edge_plan import edge_group, edge_plan
from muster.spec.settings import Edge, Settings
from tests.edge.test_edge_plan import group
from tests.sample_plans import plan

GOLDEN = Path(__file__).parents[1] / "golden" / "edge"
KIMI = edge_group(
    plan("kimi-k2-instruct", 2, "H200"),
    Settings(api_key_file="/k", monitor_networks=["198.51.100.0/24", "2001:db8::9"]),
)
QWEN = edge_group(plan("tests/recipes/qwen3-235b.yaml", 2, "H200", strategy="each-answers"), Settings())
CASES = {
    "one-group": edge_plan([KIMI], Edge()),
    "two-models": edge_plan(
        [KIMI, QWEN], Settings(edge_balance="session", edge_max_requests=64, edge_port=8443, edge_http2=True).edge
    ),
    "by-prefix": edge_plan([KIMI], Settings(edge_balance="prefix", edge_prefix_ranks=True).edge),
}


@pytest.mark.parametrize("case", CASES)
def test_files_are_as_recorded(case: str) -> None:
    for path, text in haproxy_files.files(CASES[case]).items():
        golden = GOLDEN / case / path
        if os.environ.get("MUSTER_WRITE_GOLDEN"):
            golden.parent.mkdir(parents=True, exist_ok=True)
            golden.write_text(text)
        assert text == golden.read_text(), path


def test_the_engines_keys_are_in_a_file_of_their_own() -> None:
    text = haproxy_files.engine_keys_map({"m": "sk-1"})
    assert text.splitlines()[1:] == [f"{group().model}-62c66a sk-1"]
    assert not any("sk-1" in part for part in haproxy_files.files(CASES["one-group"]).values())
