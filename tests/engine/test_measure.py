"""Benchmark, sweep, gate, evaluation and report on the deployed sandbox with the real vLLM, small."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.engine.conftest import REPOSITORY, Real

pytestmark = [pytest.mark.sandbox, pytest.mark.engine, pytest.mark.nightly]

SCENARIO = """
bench:
  tiny:
    about: two cores
    dataset-name: random
    random-input-len: 32
    random-output-len: 8
    request-rate: 1000
    num-prompts: 4
    ignore-eos: true
    sweep: [1, 4]
"""
QUESTIONS = [("Ann has 3 apples and buys 4 more. How many has she?", "#### 7"), ("What is 6 times 5?", "#### 30")]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return the recipe with a scenario that two cores can run."""
    text = (REPOSITORY / "recipes" / "kimi-k2-instruct.yaml").read_text(encoding="utf-8")
    path = tmp_path / "kimi-k2-instruct.yaml"
    path.write_text(text[: text.index("\nbench:")] + SCENARIO, encoding="utf-8")
    return path


def muster(real: Real, *words: str) -> subprocess.CompletedProcess[str]:
    return real.run("muster", *words, timeout=1800)


def test_a_sweep_is_measured_kept_compared_and_reported(real: Real, recipe: Path, tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    common = ["inventories/sandbox.py", str(recipe), *real.settings, "--ledger", ledger]
    first = muster(real, "bench", *common, "--sweep")
    assert first.returncode == 0, first.stdout + first.stderr
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(ledger).glob("*.json"))]
    assert [run["prompts"] for run in runs] == [1, 4]
    assert all(run["raw"]["completed"] == run["prompts"] for run in runs)
    assert all(run["figures"]["kv_cache_tokens"] > 0 and run["engine"]["phases"] for run in runs)

    runs[1]["figures"]["output_throughput"] *= 1000
    (tmp_path / "made-up.json").write_text(json.dumps(runs[1]), encoding="utf-8")
    worse = muster(real, "bench", *common, "--repeat", "1", "--against", str(tmp_path / "made-up.json"))
    assert worse.returncode == 1, worse.stdout + worse.stderr
    assert "WORSE" in worse.stdout

    page = tmp_path / "report.html"
    assert muster(real, "report", "--ledger", ledger, "--out", str(page)).returncode == 0
    assert "<svg" in page.read_text(encoding="utf-8")


def test_made_up_questions_are_scored(real: Real, recipe: Path, tmp_path: Path) -> None:
    lines = "".join(json.dumps({"question": asked, "answer": answer}) + "\n" for asked, answer in QUESTIONS)
    for name in ("train", "test"):
        script = f"mkdir -p /srv/gsm8k && cat > /srv/gsm8k/{name}.jsonl"
        real.box.exec(real.box.hosts[0].name, ["/bin/sh", "-c", script], stdin=lines)
    words = [
        "inventories/sandbox.py",
        str(recipe),
        *real.settings,
        "--ledger",
        str(tmp_path / "ledger"),
        "--fewshot",
        "1",
    ]
    found = muster(real, "eval", *words, "--data", "gsm8k_path=/srv/gsm8k")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "gsm8k exact_match (strict): 0.0000" in found.stdout


def test_a_stopped_rank_is_found_before_anything_is_measured(real: Real, recipe: Path, tmp_path: Path) -> None:
    unit = "muster-kimi-k2-instruct.service"
    other = real.box.hosts[1].name
    real.box.exec(other, ["/bin/systemctl", "stop", unit])
    try:
        words = ["inventories/sandbox.py", str(recipe), *real.settings, "--ledger", str(tmp_path / "ledger")]
        found = muster(real, "bench", *words)
        assert found.returncode == 2
        assert f"{other}: {unit} is inactive" in found.stderr
        assert not (tmp_path / "ledger").exists()
    finally:
        real.box.exec(other, ["/bin/systemctl", "start", unit])
