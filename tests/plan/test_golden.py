"""Whole outputs of every recipe, strategy and inventory; `MUSTER_WRITE_GOLDEN=1 pytest` rewrites them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from muster.commands.plan_text import as_json, as_text
from muster.plan import guard_files
from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.spec import inventory, recipe

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
CASES = [
    ("h800-16", "kimi-k2-instruct", {}),
    ("h800-16", "kimi-k2-instruct", {"executor": "mp"}),
    ("h200-16", "kimi-k2-instruct", {}),
    ("h200-16", "kimi-k2-instruct", {"strategy": "tp-pp"}),
    ("h200-8", "kimi-k2-thinking", {}),
    ("h200-8", "kimi-k2-thinking", {"strategy": "tp-dcp"}),
    ("h20-8", "kimi-k2-thinking", {}),
    ("h20-8", "kimi-k2-thinking", {"strategy": "tp-dcp"}),
    ("h200-8", "tests/recipes/qwen3-235b.yaml", {"strategy": "tp4"}),
    ("h200-16", "tests/recipes/qwen3-235b.yaml", {"strategy": "tep-hosts"}),
    ("h200-16", "tests/recipes/qwen3-235b.yaml", {"strategy": "replicas"}),
    ("h800-16", "tests/recipes/qwen3-235b.yaml", {"strategy": "stage-a-host"}),
    ("h200-16", "tests/recipes/qwen3-235b.yaml", {"strategy": "each-answers"}),
    ("h200-8", "kimi-k2-6", {}),
    ("h200-16", "kimi-k3", {"strategy": "multi_node_tp_dp"}),
    ("h200-8", "deepseek-v3-2", {}),
    ("h200-8", "deepseek-v4-pro", {"variant": "fp8"}),
    ("h20-8", "deepseek-v4-flash", {}),
    ("h200-8", "glm-4-7", {"variant": "fp8"}),
    ("h200-8", "glm-5-2", {}),
    ("h200-16", "qwen3-235b-a22b-instruct-2507", {"strategy": "multi_node_dep"}),
    ("h200-8", "minimax-m2-5", {"strategy": "single_node_tep"}),
    ("h800-16", "minimax-m3", {"strategy": "multi_node_tp_pp", "variant": "mxfp8"}),
    ("h20-8", "gpt-oss-120b", {}),
    ("h200-8", "gpt-oss-20b", {}),
    ("h200-8", "llama-3-3-70b-instruct", {"variant": "fp8"}),
]


def whole(plan: Plan, case: str) -> dict[str, str]:
    """The plan as text and JSON, without the guard's own source and the digests that follow from it."""
    program, told = guard_files.program()[0], as_json(plan)
    for host in told["hosts"].values():
        host["files"] = {path: file for path, file in host["files"].items() if f"/guard/{program}/" not in path}
    lines = [line for line in as_text(plan).splitlines() if f"/guard/{program}/" not in line]
    texts = {f"{case}.txt": "\n".join(lines) + "\n", f"{case}.json": json.dumps(told, indent=2) + "\n"}
    return {file: text.replace(plan.digest, "DIGEST").replace(program, "GUARD") for file, text in texts.items()}


@pytest.mark.parametrize(("name", "recipe_name", "data"), CASES)
def test_plan_is_as_recorded(
    name: str, recipe_name: str, data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    fleet = inventory.from_path(f"inventories/{name}.py", data)
    plan = build_plan(recipe.load(recipe_name), fleet.hosts, fleet.settings)
    case = "-".join([name, Path(recipe_name).stem, *data.values()])
    for file, text in whole(plan, case).items():
        if os.environ.get("MUSTER_WRITE_GOLDEN"):
            (GOLDEN / file).write_text(text)
        assert text == (GOLDEN / file).read_text(), f"{file} differs; see MUSTER_WRITE_GOLDEN in this module"
