"""What a measuring tool's host says of itself is read whatever nvidia-smi prints."""

from __future__ import annotations

import pytest

from muster.on_host import run_tool


def test_a_line_that_is_no_gpu_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    output = "warning: persistence mode is off\nNVIDIA H200, 580.159.04\n"
    monkeypatch.setattr(run_tool.run_command, "run", lambda *_: (0, output))
    answer = run_tool.main({"do": "log", "units": []})
    assert (answer["gpus"], answer["driver"]) == (["NVIDIA H200"], "580.159.04")
