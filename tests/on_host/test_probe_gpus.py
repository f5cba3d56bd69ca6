"""GPUs, fabric and network as tools print them, run as a host runs them: by a bare Python, from standard input."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from muster.hosts import programs
from muster.on_host import probe_gpus, probe_machine, probe_sources

from ..preflight import sample


def bundled(requests: dict[str, Any], env: dict[str, str] | None = None, seconds: float = 60) -> dict[str, Any]:
    """Run programs through the command that a host runs."""
    done = subprocess.run(
        ["sh", "-c", programs.COMMAND],
        input=programs.bundle(requests),
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return programs.answers(done.stdout.splitlines())


@pytest.fixture
def tools(tmp_path: Path) -> Any:
    """Return a function that puts a tool before all others, and the PATH that finds it."""
    place = tmp_path / "bin"
    place.mkdir()

    def tool(name: str, script: str) -> dict[str, str]:
        path = place / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return {"PATH": f"{place}:{os.environ['PATH']}"}

    return tool


def test_whole_probe_answers_every_source() -> None:
    answers = bundled(sample.needs().requests())
    assert set(answers) == {"probe_gpus", "probe_firewall", "probe_machine", "probe_engine"}
    assert set(answers["probe_gpus"]) == set(probe_gpus.SOURCES)
    assert set(answers["probe_machine"]) == set(probe_machine.SOURCES)
    for program in ("probe_gpus", "probe_machine"):
        assert all(set(answer) in ({"value"}, {"error"}) for answer in answers[program].values())
    assert abs(answers["probe_machine"]["clock"]["value"]["wall"] - time.time()) < 60


def test_missing_tool_says_so_and_costs_nothing_else(tools: Any) -> None:
    env = tools("ip", "echo '[]'")
    answers = bundled({"probe_gpus": {"sources": ["nvlink", "links"]}}, env)["probe_gpus"]
    assert answers["links"]["value"]["text"] == "[]\n"
    if not shutil.which("nvidia-smi"):
        assert answers["nvlink"] == {"error": "nvidia-smi is not installed"}


def test_refused_fields_are_left_out_one_by_one(tools: Any) -> None:
    env = tools(
        "nvidia-smi",
        """case "$1" in
*fabric.state*) echo 'Field "fabric.state" is not a valid field to query.'; exit 2;;
*clocks_event_reasons*) echo 'Field "clocks_event_reasons.active" is not a valid field to query.'; exit 2;;
*) echo "$1";;
esac""",
    )
    answer = bundled({"probe_gpus": {"sources": ["gpus"]}}, env)["probe_gpus"]["gpus"]["value"]
    assert answer["refused"] == ["fabric.state", "clocks_event_reasons.active"]
    asked = answer["text"].strip().partition("=")[2].split(",")
    assert "fabric.status" in asked
    assert asked[-1] == "clocks_throttle_reasons.active"
    assert "fabric.state" not in asked


def test_tool_that_refuses_everything_ends(tools: Any) -> None:
    env = tools("nvidia-smi", 'f=${1#*=}; echo "Field \\"${f%%,*}\\" is not a valid field to query."; exit 2')
    answer = bundled({"probe_gpus": {"sources": ["gpus"]}}, env)["probe_gpus"]["gpus"]["value"]
    assert (
        set(answer["refused"]) == {*probe_gpus.GPU_FIELDS, "clocks_throttle_reasons.active"} - {""} or answer["rc"] == 2
    )


def test_gigantic_output_is_cut_and_the_tool_killed(tools: Any) -> None:
    env = tools("nvidia-smi", "exec yes 0123456789012345678901234567890123456789")
    answer = bundled({"probe_gpus": {"sources": ["topology"]}}, env)["probe_gpus"]["topology"]["value"]
    assert answer["truncated"]
    assert len(answer["text"]) == probe_sources.LIMIT


def test_hung_tool_is_left_behind(tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    env = tools("nvidia-smi", "sleep 600")
    monkeypatch.setenv("PATH", env["PATH"])
    before = time.monotonic()
    with pytest.raises(TimeoutError, match=r"nvidia-smi did not answer in 0\.3 s"):
        probe_sources.tool(["nvidia-smi"], seconds=0.3)
    assert time.monotonic() - before < 30, "it waits for the deadline, not for the tool"


def test_source_that_hangs_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probe_gpus.SOURCES, "nvlink", lambda: time.sleep(600) or {})
    monkeypatch.setitem(probe_gpus.SOURCES, "names", lambda: {"hostname": "h"})
    answers = probe_gpus.main({"sources": ["nvlink", "names"], "seconds": 0.3})
    assert answers == {"nvlink": {"error": "no answer in time"}, "names": {"value": {"hostname": "h"}}}


def test_kernel_log_is_thinned_to_xids(tools: Any) -> None:
    env = tools("journalctl", "exit 1")
    xid = "[    5.1] NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus."
    tools("dmesg", f"seq 1 400000; echo '{xid}'; seq 1 10")
    answer = bundled({"probe_gpus": {"sources": ["driver_log"]}}, env)["probe_gpus"]["driver_log"]["value"]
    assert (answer["rc"], answer["text"]) == (0, xid)


def test_kernel_log_that_nobody_may_read_is_said(tools: Any) -> None:
    env = tools("journalctl", "exit 1")
    tools("dmesg", "echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    answer = bundled({"probe_gpus": {"sources": ["driver_log"]}}, env)["probe_gpus"]["driver_log"]["value"]
    assert answer["rc"] == 1
