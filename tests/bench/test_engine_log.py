"""Engine logs: recorded ones of three shapes and two versions, and noise."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.bench import engine_log

RECORDED = Path(__file__).parent / "recorded"


def read(name: str) -> list[str]:
    return (RECORDED / f"{name}.log").read_text(encoding="utf-8").splitlines()


def test_two_h200s_with_tensor_parallel() -> None:
    log = engine_log.parse(read("h200x2-tp"))
    assert (log.version, log.backend) == ("0.26.0", "FLASH_ATTN_MLA")
    assert (log.tokens, log.cache_gib, log.weights_gib) == (18_560_464, 119.48, 4.4)
    assert log.concurrency == (16384, 1132.84)
    assert log.phases["compile"] == 19.63
    assert log.phases["profile"] == 4.67
    assert log.phases["CUDA graphs"] == 12
    assert log.phases["engine"] == 46.69
    assert log.seconds == 114


def test_decode_context_parallel_nearly_doubles_the_cache() -> None:
    before, now = (engine_log.parse(read(name)).tokens for name in ("h200x2-tp", "h200x2-tp-dcp"))
    assert before
    assert now
    assert now / before == pytest.approx(1.96, abs=0.01)


def test_every_data_parallel_rank_logs_a_cache_of_its_own() -> None:
    assert engine_log.parse(read("h200x2-dp-ep")).cache_tokens == (310_688, 310_688)


def test_a_newer_version_on_cpus() -> None:
    log = engine_log.parse(read("cpu-0.32"))
    assert (log.version, log.tokens, log.concurrency) == ("0.32.0", 524_288, (2048, 256.0))
    assert log.phases == {"engine": 1.6}


@pytest.mark.parametrize(
    ("line", "phase", "seconds"),
    [
        ("INFO 01-01 00:00:00 init engine (profile, create kv cache, warmup model) took 7.25 seconds", "engine", 7.25),
        ("torch.compile takes 31.70 s in total", "compile", 31.7),
        ("Model loading took 5.5 GiB and 12.5 seconds", "load model", 12.5),
        ("\x1b[32mGraph capturing finished in 8 secs, took 0.46 GiB\x1b[0m", "CUDA graphs", 8),
        ("(Worker_TP0 pid=7) INFO 01-01 00:00:00 [x.py:1] Loading weights took 901.20 seconds", "read weights", 901.2),
    ],
)
def test_wordings_of_other_versions(line: str, phase: str, seconds: float) -> None:
    assert engine_log.parse([line]).phases == {phase: seconds}


def test_the_slowest_rank_counts() -> None:
    lines = [f"(Worker_TP{rank}) Loading weights took {took} seconds" for rank, took in enumerate((3.0, 9.5, 4.0))]
    assert engine_log.parse(lines).phases == {"read weights": 9.5}


def test_a_start_over_new_year() -> None:
    lines = ["INFO 12-31 23:59:30 [a.py:1] x", "INFO 01-01 00:01:00 [a.py:1] y", "INFO: Application startup complete."]
    assert engine_log.parse(lines).seconds == 90


@given(st.lists(st.text(max_size=80), max_size=20))
def test_noise_says_nothing(lines: list[str]) -> None:
    assert engine_log.parse(lines).tokens is None


@given(st.sampled_from(read("h200x2-tp")), st.integers(0, 200), st.text(max_size=5))
def test_a_cut_line_does_no_harm(line: str, at: int, more: str) -> None:
    log = engine_log.parse([line[:at] + more + line[at:], line[:at]])
    assert all(took >= 0 for took in log.phases.values())
