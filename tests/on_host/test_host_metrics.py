"""What a GPU host's timer measures, out of what nvidia-smi prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from muster.on_host import host_metrics

GPUS = """index, uuid, utilization.gpu [%], memory.used [MiB], power.draw [W], clocks_event_reasons.active
0, GPU-a, 97 %, 1024 MiB, 650.25 W, 0x0000000000000044
1, GPU-b, [N/A], 0 MiB, [Unknown Error], 0x0000000000000001
"""
REMAPS = "gpu_uuid, remapped_rows.pending, remapped_rows.failure\nGPU-a, 1, 0\n"
LINKS = "GPU 0: NVIDIA H200 (UUID: GPU-a)\n\t Link 0: 26.562 GB/s\n\t Link 1: <inactive>\n"
ERRORS = "GPU 0: NVIDIA H200 (UUID: GPU-a)\n\t Link 0: Replay Errors: 3\n\t Link 1: Replay Errors: 4\n"
SERIES = re.compile(r'^(\w+)\{((?:\w+="[^"\\\n]*",?)*)\} (\S+)$')


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of tools that comes first in PATH: nvidia-smi prints files, modinfo prints a version."""
    files = {"gpu": GPUS, "remapped": REMAPS, "s": LINKS, "e": ERRORS, "driver": "580.95.05\n", "module": "580.95.05\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    tools = {
        "nvidia-smi": """case "$*" in
*driver_version*) cat driver;; *query-gpu*) cat gpu;; *remapped*) cat remapped;; "nvlink -s") cat s;; *) cat e;;
esac""",
        "modinfo": "cat module",
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def measured(host: Path, **request: object) -> dict[str, float]:
    """Run it and return `metric{labels}` -> value; every line must be Prometheus's text format."""
    out = host / "muster.prom"
    host_metrics.main({"out": str(out), **request})
    found = {}
    for line in out.read_text().splitlines():
        if not line.startswith("#"):
            match = SERIES.match(line)
            assert match, line
            found[f"{match[1]}{{{match[2]}}}"] = float(match[3])
    return found


def test_gpus_in_base_units(host: Path) -> None:
    found = measured(host)
    assert found['muster_gpu_utilization_ratio{gpu="0",uuid="GPU-a"}'] == pytest.approx(0.97)
    assert found['muster_gpu_memory_used_bytes{gpu="0",uuid="GPU-a"}'] == 2**30
    assert found['muster_gpu_power_watts{gpu="0",uuid="GPU-a"}'] == 650.25
    assert 'muster_gpu_power_watts{gpu="1",uuid="GPU-b"}' not in found
    reasons = {key: value for key, value in found.items() if "throttled" in key and 'gpu="0"' in key and value}
    assert set(reasons) == {
        f'muster_gpu_throttled{{gpu="0",uuid="GPU-a",reason="{reason}"}}' for reason in ("sw_power_cap", "hw_thermal")
    }
    assert found['muster_gpu_row_remap{uuid="GPU-a",state="pending"}'] == 1
    assert found['muster_gpu_nvlinks{gpu="0",state="inactive"}'] == 1
    assert found['muster_gpu_nvlink_errors{gpu="0",kind="replay"}'] == 7


@pytest.mark.parametrize(
    ("driver", "module", "drift"),
    [
        ("580.95.05\n", "580.95.05\n", 0.0),
        ("580.95.05\n", "580.99.01\n", 1.0),
        ("580.95.05\n", "", 0.0),
        ("Failed to initialize NVML: Driver/library version mismatch\n", "580.99.01\n", 1.0),
        ("No devices were found\n", "580.99.01\n", None),
    ],
)
def test_a_driver_that_is_not_the_one_on_the_disk(host: Path, driver: str, module: str, drift: float | None) -> None:
    (host / "driver").write_text(driver)
    (host / "module").write_text(module)
    assert measured(host).get("muster_driver_drift{}") == drift


def test_weights_that_are_not_there_are_unverified(host: Path) -> None:
    gone = {"directory": str(host / "weights" / "0123"), "manifest": "4567"}
    found = measured(host, weights=[{**gone, "group": "kimi-a"}, {**gone, "group": "kimi-b"}])
    assert {name: value for name, value in found.items() if "weights" in name} == {
        'muster_weights_verified{used_by="kimi-a",revision="0123"}': 0,
        'muster_weights_verified{used_by="kimi-b",revision="0123"}': 0,
    }


def test_without_tools_the_rest_is_measured(host: Path) -> None:
    (host / "nvidia-smi").unlink()
    found = measured(host, weights=[{"directory": str(host / "w"), "manifest": "", "group": "a"}])
    assert set(found) == {'muster_weights_verified{used_by="a",revision="w"}'}


def test_hostile_words_stay_inside_their_label(host: Path) -> None:
    (host / "gpu").write_text('index, uuid, memory.used [MiB]\n0, a"} 1 \\evil{x=", 5 MiB\n')
    assert [key for key in measured(host) if key.startswith("muster_gpu_memory")] == [
        'muster_gpu_memory_used_bytes{gpu="0",uuid="a__ 1 _evil_x__"}'
    ]
