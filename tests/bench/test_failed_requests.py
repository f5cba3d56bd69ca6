"""Why requests failed: counted beside the tool, and the bulk of its details dropped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from muster.bench import bench_result, failed_requests

RECORDED = Path(__file__).parent / "recorded" / "bench-serve-0.32.json"


def run(directory: Path, result: dict[str, Any] | None, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the program around a tool that writes `result` and ends with `status`."""
    (directory / failed_requests.FILE).write_text(failed_requests.PROGRAM)
    (directory / "given.json").write_text(json.dumps(result))
    copy = "import shutil; shutil.copyfile('given.json', 'result.json')" if result is not None else "pass"
    tool = [sys.executable, "-c", f"{copy}; raise SystemExit({status})"]
    command = failed_requests.argv("result.json", tool)
    return subprocess.run(
        [sys.executable, *command[1:]], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )


def test_reasons_are_counted_and_reach_the_problem(tmp_path: Path) -> None:
    raw = json.loads(RECORDED.read_text())
    trace = "Traceback (most recent call last):\n  File x\naiohttp.client_exceptions.ServerDisconnectedError"
    errors = ["", "Bad Request", "Bad Request", trace, "", "", "", ""]
    bulk = {name: [[0.1] * 1000] * 8 for name in ("itls", "ttfts", "generated_texts", "latencies")}
    done = run(tmp_path, {**raw, **bulk, "completed": 5, "failed": 3, "errors": errors})
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "result.json").read_text()
    assert len(text) < 5000
    (problem,) = bench_result.parse_text(text).problems
    assert problem == ("3 of 8 requests failed: 2 x Bad Request, 1 x aiohttp.client_exceptions.ServerDisconnectedError")


def test_a_good_run_and_the_tools_own_end_stay_as_they_are(tmp_path: Path) -> None:
    done = run(tmp_path, {**json.loads(RECORDED.read_text()), "errors": [""] * 8}, status=3)
    assert done.returncode == 3
    assert bench_result.parse_text((tmp_path / "result.json").read_text()).problems == ()
    (tmp_path / "result.json").unlink()
    assert run(tmp_path, None, status=1).returncode == 1
    assert not (tmp_path / "result.json").exists()


def test_errors_of_another_form_say_nothing() -> None:
    raw = json.loads(RECORDED.read_text()) | {"completed": 7, "failed": 1}
    for errors in (["", "x"], [["x", True]], [["x"]], {"x": 1}, 3, [[3, 3]]):
        assert bench_result.parse({**raw, "errors": errors}).problems == ("1 of 8 requests failed",)
