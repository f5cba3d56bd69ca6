from __future__ import annotations

from pathlib import Path

from muster.sandbox import serving_settings


def test_a_cpu_wheel_of_pytorch_decides_the_python() -> None:
    cpu = f"torch-{serving_settings.vllm_wheel.TORCH}+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert serving_settings.torch_python(["numpy-1.whl", cpu]) == "3.11"
    assert serving_settings.torch_python([cpu.replace("+cpu", "")]) is None
    assert serving_settings.torch_python([cpu.replace(serving_settings.vllm_wheel.TORCH, "1.0.0")]) is None


def test_the_hosts_python_is_read_from_their_root(tmp_path: Path) -> None:
    assert serving_settings.host_python(tmp_path) is None
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3").symlink_to("python3.12")
    assert serving_settings.host_python(tmp_path) == "3.12"
