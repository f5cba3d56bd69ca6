"""`muster bench` on two hosts that serve with the stand-in: over SSH, as a unit on the head, into the ledger."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests import standin
from tests.deploys.conftest import HOSTS, UNIT, Testbed

pytestmark = pytest.mark.sandbox

# In the place of `vllm bench serve`: asks the endpoint as often as it is told and writes what the real one writes.
TOOL = f"""\
#!{standin.PATH}/bin/python
import json, sys, time, urllib.request
if sys.argv[1:2] != ["bench"]:
    from vllm.entrypoints.cli.main import main
    sys.exit(main())
told = dict(zip(sys.argv[3::1], sys.argv[4::1]))
count, begun = int(told["--num-prompts"]), time.monotonic()
body = json.dumps({{"model": told["--served-model-name"], "prompt": "1", "max_tokens": 4}}).encode()
kind = {{"Content-Type": "application/json"}}
failed = 0
for _ in range(count):
    request = urllib.request.Request(told["--base-url"] + "/v1/completions", body, kind)
    try:
        urllib.request.urlopen(request, timeout=20).read()
    except OSError:
        failed += 1
gone = time.monotonic() - begun
done = count - failed
json.dump({{"num_prompts": count, "completed": done, "failed": failed, "duration": gone, "total_input_tokens": count,
           "total_output_tokens": 4 * done, "request_throughput": done / gone, "output_throughput": 4 * done / gone,
           "total_token_throughput": 5 * done / gone, "mean_ttft_ms": 1.0, "mean_tpot_ms": float("nan")}},
          open(told["--result-dir"] + "/" + told["--result-filename"], "w"))
print("asked", count, "times", flush=True)
"""


def bench(testbed: Testbed, *words: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Measure the group with the tool above in the place of vLLM's."""
    tool = testbed.box.tree("node0") / standin.PATH.lstrip("/") / "bin" / "vllm"
    tool.write_text(TOOL, encoding="utf-8")
    data = [word for key, value in settings.items() for word in ("--data", f"{key}={value}")]
    return testbed.muster("bench", "--ledger", "ledger", *words, *data)


def kept(testbed: Testbed) -> list[dict[str, Any]]:
    paths = sorted((testbed.directory / "ledger").glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def test_two_repeats_are_measured_on_the_head_and_leave_nothing_behind(serving: Testbed) -> None:
    ran = bench(serving, "--scenario", "h800", "--repeat", "2")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    entries = kept(serving)
    assert [entry["raw"]["completed"] for entry in entries] == [8, 8]
    assert entries[0]["hardware"] == "2x NVIDIA H200"
    assert entries[0]["raw"]["mean_tpot_ms"] is None
    assert serving.sh("node0", "ls -d /run/muster-bench-* /run/private/muster-bench-* 2>/dev/null || true") == ""
    assert serving.sh("node0", "systemctl list-units --all --no-legend 'muster-bench-*'") == ""


def test_a_group_of_another_plan_is_not_measured(serving: Testbed) -> None:
    ran = bench(serving, max_num_seqs=7)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "not fit to be measured" in ran.stderr
    assert "runs plan" in ran.stderr
    assert kept(serving) == []


def test_a_stopped_rank_is_named_and_nothing_is_measured(serving: Testbed) -> None:
    serving.sh("node1", f"systemctl stop {UNIT}")
    try:
        ran = bench(serving)
        assert ran.returncode == 2, ran.stdout + ran.stderr
        assert f"node1: {UNIT} is inactive" in ran.stderr
        assert kept(serving) == []
    finally:
        for name in HOSTS:  # without a guard a rank does not come back to a head that has lost it
            serving.sh(name, f"systemctl restart {UNIT}")
        serving.wait("the group serves again", serving.answers)
