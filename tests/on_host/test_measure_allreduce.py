"""The all-reduce between forked ranks: what it says when there is no torch, and that a rank that hangs is ended."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import measure_allreduce

REQUEST = {"node": 0, "nodes": 1, "gpus": 2, "master": "127.0.0.1", "port": 29711, "interface": None,
           "backend": "gloo", "bytes": 4096, "seconds": 30.0}  # fmt: skip


def test_no_torch_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(request: dict[str, Any], local: int) -> dict[str, Any]:
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setattr(measure_allreduce, "work", none)
    error = measure_allreduce.main(REQUEST)["error"]
    assert error == "; ".join(f"GPU {i}: ModuleNotFoundError: No module named 'torch'" for i in range(2))


def test_a_rank_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def hang(request: dict[str, Any], local: int) -> dict[str, Any]:
        (tmp_path / str(local)).write_text(str(os.getpid()))
        time.sleep(600)
        return {}

    monkeypatch.setattr(measure_allreduce, "work", hang)
    found = measure_allreduce.main({**REQUEST, "seconds": 3.0})
    assert found == {"error": "GPU 0: not done in 3 s; GPU 1: not done in 3 s"}
    for local in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / str(local)).read_text()), 0)


def test_ranks_answer_with_the_slowest_and_their_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    def reduced(request: dict[str, Any], local: int) -> dict[str, Any]:
        Path(os.environ["NCCL_DEBUG_FILE"]).write_text(f"noise\n0[0] -> 1[1] via P2P/{local}\n")
        assert os.environ["NCCL_NVLS_ENABLE"] == "0"
        return {"ranks": 2, "seconds": 0.1 * (local + 1), "bytes": 4096}

    monkeypatch.setattr(measure_allreduce, "work", reduced)
    found = measure_allreduce.main({**REQUEST, "env": {"NCCL_NVLS_ENABLE": "0"}})
    assert (found["ranks"], found["seconds"]) == (2, 0.2)
    assert found["log"].split("\n")[:2] == ["0[0] -> 1[1] via P2P/0", "0[0] -> 1[1] via P2P/1"]
