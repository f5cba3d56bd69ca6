"""The simulated tools print what a real 2x H200 host printed, and what a fault changes in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import muster.sandbox
from muster.errors import Refusal
from muster.sandbox import simulated_gpus
from muster.spec.hardware import GPUS

PACKAGE = Path(muster.sandbox.__file__).parent
RECORDED = PACKAGE / "recorded"
FIELDS = (
    "index,name,uuid,memory.total,driver_version,compute_cap,mig.mode.current,ecc.mode.current,"
    "ecc.errors.uncorrected.volatile.total,retired_pages.pending,persistence_mode,fabric.state,fabric.status,"
    "temperature.gpu,clocks_event_reasons.active"
)
Tool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    """Run one of the hosts' programs here: `tool(content of gpus.json, "nvidia_smi", "-L")`."""

    def run(content: dict[str, Any], name: str, *argv: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "gpus.json").write_text(json.dumps(content))
        env = {**os.environ, "PYTHONPATH": str(PACKAGE), "MUSTER_SANDBOX_GPUS": str(tmp_path / "gpus.json")}
        command = [sys.executable, "-s", "-m", f"tools.{name}", *argv]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)

    return run


def query(tool: Tool, content: dict[str, Any], fields: str, form: str = "csv,noheader") -> list[str]:
    return tool(content, "nvidia_smi", f"--query-gpu={fields}", f"--format={form}").stdout.splitlines()


@pytest.mark.parametrize(
    ("argv", "recording"),
    [
        (["-q", "-x"], "h200x2-q.xml"),
        (["nvlink", "-s"], "h200x2-nvlink-s.txt"),
        (["topo", "-m"], "h200x2-topo-m.txt"),
        ([f"--query-gpu={FIELDS}", "--format=csv"], "h200x2-query-gpu.csv"),
        (["--query-compute-apps=pid,gpu_uuid,used_memory", "--format=csv"], "h200x2-compute-apps-idle.csv"),
    ],
)
def test_a_healthy_host_prints_the_recording_byte_for_byte(tool: Tool, argv: list[str], recording: str) -> None:
    done = tool(simulated_gpus.healthy("H200", 2), "nvidia_smi", *argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (RECORDED / recording).read_text()


@pytest.mark.parametrize("profile", sorted(GPUS))
def test_every_product_prints_its_name_and_memory_eight_times(tool: Tool, profile: str) -> None:
    rows = query(tool, simulated_gpus.healthy(profile, 8), "name,memory.total", "csv,noheader,nounits")
    assert rows == [f"{GPUS[profile].product}, {GPUS[profile].memory_mib}"] * 8
    root = ET.fromstring(tool(simulated_gpus.healthy(profile, 8), "nvidia_smi", "-q", "-x").stdout)
    assert len({gpu.findtext("uuid") for gpu in root.iter("gpu")}) == 8
    assert root.findtext("attached_gpus") == "8"


def test_h800_has_fewer_links(tool: Tool) -> None:
    assert "NV8" in tool(simulated_gpus.healthy("H800", 2), "nvidia_smi", "topo", "-m").stdout


HEALTHY = simulated_gpus.healthy("H200", 8)


def test_a_missing_gpu_is_in_no_output(tool: Tool) -> None:
    content = simulated_gpus.missing(HEALTHY, 3)
    assert query(tool, content, "index") == ["0", "1", "2", "4", "5", "6", "7"]
    assert "000000000003" not in tool(content, "nvidia_smi", "-q", "-x").stdout
    assert "GPU3" not in tool(content, "nvidia_smi", "topo", "-m").stdout


@pytest.mark.parametrize(
    ("content", "field", "value"),
    [
        (simulated_gpus.driver(HEALTHY, "535.161.08", cuda="12.2"), "driver_version", "535.161.08"),
        (simulated_gpus.mig(HEALTHY, 5), "mig.mode.current", "Enabled"),
        (simulated_gpus.ecc_off(HEALTHY, 5), "ecc.mode.current", "Disabled"),
        (simulated_gpus.ecc_errors(HEALTHY, 5, 2), "ecc.errors.uncorrected.volatile.total", "2"),
        (simulated_gpus.persistence_off(HEALTHY, 5), "persistence_mode", "Disabled"),
        (simulated_gpus.fabric(HEALTHY, 5, "In Progress", "N/A"), "fabric.state", "In Progress"),
        (simulated_gpus.slowed(HEALTHY, 5, 0x40), "clocks_event_reasons.active", "0x0000000000000040"),
        (simulated_gpus.slowed(HEALTHY, 5, 0x40), "clocks_event_reasons.hw_thermal_slowdown", "Active"),
        (simulated_gpus.process(HEALTHY, 5, pid=77, name="python3", used_mib=1024), "memory.used", "1024 MiB"),
    ],
)
def test_a_fault_shows_in_the_query_of_its_gpu_alone(
    tool: Tool, content: dict[str, Any], field: str, value: str
) -> None:
    before, after = query(tool, HEALTHY, field), query(tool, content, field)
    assert after[5] == value != before[5]
    if field != "driver_version":
        assert [line for i, line in enumerate(after) if i != 5] == [line for i, line in enumerate(before) if i != 5]


def test_a_pending_remap_shows_in_its_query_and_in_xml(tool: Tool) -> None:
    content = simulated_gpus.remap_pending(HEALTHY, 1)
    argv = ["--query-remapped-rows=gpu_bus_id,remapped_rows.pending", "--format=csv,noheader"]
    assert [line.split(", ")[1] for line in tool(content, "nvidia_smi", *argv).stdout.splitlines()] == (
        ["No", "Yes"] + ["No"] * 6
    )


def test_a_foreign_process_is_listed_with_its_gpu(tool: Tool) -> None:
    content = simulated_gpus.process(HEALTHY, 2, pid=77, name="python3", used_mib=1024)
    argv = ["--query-compute-apps=pid,process_name,gpu_uuid,used_memory", "--format=csv,noheader"]
    assert tool(content, "nvidia_smi", *argv).stdout == (
        "77, python3, GPU-00000000-0000-0000-0000-000000000002, 1024 MiB\n"
    )
    root = ET.fromstring(tool(content, "nvidia_smi", "-q", "-x").stdout)
    assert [pid.text for pid in root.iter("pid")] == ["77"]


def test_dropped_links_show_in_nvlink_and_topology(tool: Tool) -> None:
    content = simulated_gpus.links_down(simulated_gpus.healthy("H200", 2), 1, 0, 3)
    assert tool(content, "nvidia_smi", "nvlink", "-s").stdout.count("<inactive>") == 2
    assert tool(content, "nvidia_smi", "topo", "-m").stdout.count("NV16") == 2


def test_an_xid_is_in_the_kernel_log_of_its_boot_only(tool: Tool) -> None:
    content = simulated_gpus.xid(HEALTHY, 0, 79)
    assert "Xid (PCI:0000:00:06): 79, " in tool(content, "driver_log", "dmesg").stdout
    assert "kernel: NVRM: Xid (PCI:0000:00:06): 79, " in tool(content, "driver_log", "journalctl", "-k").stdout
    assert "Xid" not in tool(HEALTHY, "driver_log", "dmesg").stdout
    assert "Xid" not in tool(simulated_gpus.xid(HEALTHY, 0, 79, boot_id="another"), "driver_log", "dmesg").stdout


def test_a_follower_tells_what_is_there_and_then_what_is_new(tmp_path: Path) -> None:
    file = tmp_path / "gpus.json"
    file.write_text(json.dumps(HEALTHY))
    env = {**os.environ, "PYTHONPATH": str(PACKAGE), "MUSTER_SANDBOX_GPUS": str(file)}
    words = ["journalctl", "-k", "-b", "-f", "--no-tail", "-o", "short-monotonic"]
    command = [sys.executable, "-s", "-m", "tools.driver_log", *words]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        first = [follower.stdout.readline() for _ in range(2)]
        assert first[0].startswith("[    2.000000] ")
        draft = tmp_path / "draft"
        draft.write_text(json.dumps(simulated_gpus.xid(HEALTHY, 0, 79)))
        draft.rename(file)
        assert "kernel: NVRM: Xid (PCI:0000:00:06): 79, " in follower.stdout.readline()
        follower.kill()


def test_fabric_manager_tells_its_version(tool: Tool) -> None:
    done = tool(simulated_gpus.fabric_manager(HEALTHY, "580.126.20"), "nv_fabricmanager", "--version")
    assert done.stdout == "Fabric Manager version is : 580.126.20\n"


def test_an_unknown_field_ends_as_the_real_tool_does(tool: Tool) -> None:
    done = tool(HEALTHY, "nvidia_smi", "--query-gpu=index,colour", "--format=csv")
    assert (done.returncode, done.stdout) == (2, 'Field "colour" is not a valid field to query.\n\n')


def test_a_tool_can_be_made_to_fail(tool: Tool) -> None:
    done = tool(simulated_gpus.no_driver(HEALTHY), "nvidia_smi", "-L")
    assert done.returncode == 9
    assert "couldn't communicate" in done.stdout
    assert tool({**HEALTHY, "gpus": []}, "nvidia_smi").stdout == "No devices were found\n"


def test_faults_leave_the_content_they_were_given_alone() -> None:
    before = json.dumps(HEALTHY)
    for content in (
        simulated_gpus.missing(HEALTHY, 1),
        simulated_gpus.mig(HEALTHY, 0),
        simulated_gpus.xid(HEALTHY, 0, 48),
    ):
        assert content != HEALTHY
    assert json.dumps(HEALTHY) == before


def test_a_gpu_or_path_that_is_not_there_is_a_loud_mistake(tool: Tool) -> None:
    with pytest.raises(Refusal, match="no GPU 9"):
        simulated_gpus.missing(HEALTHY, 9)
    assert tool(simulated_gpus.with_value(HEALTHY, 0, "fabric/stat", "x"), "nvidia_smi", "-L").returncode == 1
