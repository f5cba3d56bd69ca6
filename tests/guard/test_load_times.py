"""How long weights took to load, as the engine logged it, and that nobody else can say so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.guard.engine_deaths import DeathWatch
from muster.guard.load_times import LoadTimes

from .test_engine_deaths import MARK, recorded

# As vLLM 0.32.0 (CPU build) and 0.33.0 (two H100s) wrote them.
READ = "(Worker pid=21538) INFO 11-27 15:21:33 [default_loader.py:501] Loading weights took 17.78 seconds"
MODEL = (
    "(Worker_TP1 pid=1) INFO 11-26 10:06:22 [model_runner.py:428] Model loading took 4.36 GiB memory and 2.16 seconds"
)


def heard(*lines: str, step: int = 1000) -> LoadTimes:
    """What is heard of lines that come in pieces."""
    watch, data = DeathWatch(MARK), "".join(f"{line}\n" for line in lines).encode()
    for at in range(0, len(data), step):
        watch.feed(data[at : at + step], 0.0)
    return watch.loads


@pytest.mark.parametrize("step", [1, 97, 4096])
def test_the_slowest_process_counts(step: int) -> None:
    assert heard(step=step) == LoadTimes(None, None)
    lines = [MARK + READ, MARK + READ.replace("17.78", "18.5"), MARK + READ.replace("17.78", "2.00"), MARK + MODEL]
    assert heard(*lines, step=step) == LoadTimes(18.5, 2.16)


def test_a_recorded_start_with_dummy_weights_reads_none() -> None:
    watch = DeathWatch(MARK)
    watch.feed(recorded("033-healthy-tp2-dcp2.log"), 0.0)
    assert watch.loads.read is None
    assert watch.loads.model == pytest.approx(2.494190)


@pytest.mark.parametrize(
    "line",
    [
        READ,  # without the mark: of no process that the guard started
        MARK + READ.replace("Loading", "Received prompt: Loading"),  # what a client wrote is the text of another record
        MARK + READ.replace("Loading", f"{READ} Loading"),
        MARK + READ.replace("17.78", "1" * 400),
        MARK + READ.replace("17.78", "-1"),
        MARK + READ.replace("17.78", "nan"),
        MARK + READ.replace("17.78", "1e9"),
        MARK + READ.replace("17.78", "1.2.3"),
        MARK + READ.replace("INFO", "ERROR"),
    ],
)
def test_nothing_else_is_a_load(line: str) -> None:
    assert heard(line) == LoadTimes()


@given(st.text())
def test_no_text_makes_more_than_a_bounded_number(text: str) -> None:
    loads = heard(MARK + READ.replace("17.78", text), MARK + MODEL.replace("2.16", text))
    assert all(seconds is None or 0 <= seconds < 1e7 for seconds in (loads.read, loads.model))
