"""The engine's words for a dead worker, on recorded output, and that nobody else can say them."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.guard.engine_deaths import SETTLED, WORDS, DeathWatch, MarkRemover

LOGS = Path(__file__).parent / "engine_logs"
MARK = "<0123456789abcdef0123456789abcdef> "
RECORD = re.compile(r"\([^()\n]{1,80} pid=\d+\) [A-Z]{4,8} \d\d-\d\d \d\d:\d\d:\d\d \[")


def recorded(name: str) -> bytes:
    """A recorded output as vLLM writes it with the mark as its prefix."""
    return RECORD.sub(lambda match: MARK + match[0], (LOGS / name).read_text(encoding="utf-8")).encode()


def verdict(data: bytes, step: int = 1000) -> str:
    """What is said of an output that comes in pieces."""
    watch = DeathWatch(MARK)
    for at in range(0, len(data), step):
        watch.feed(data[at : at + step], 0.0)
    return watch.verdict(2 * SETTLED)


CRASHES = {
    "033-crash-while-starting.log": (
        "Worker_TP1_DCP1: WorkerProc hit an exception. in compile_or_warm_up_model: "
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered"
    ),
    "033-crash-in-warm-up.log": (
        "Worker_TP1: WorkerProc hit an exception. in compile_or_warm_up_model: "
        "RuntimeError: Triton Error [CUDA]: an illegal memory access was encountered"
    ),
    "033-silent-until-the-stop.log": (
        "EngineCore: Worker proc VllmWorker-1 died unexpectedly (exit code: None), shutting down executor."
    ),
}


@pytest.mark.parametrize("name", CRASHES)
@pytest.mark.parametrize("step", [1, 97, 4096])
def test_a_recorded_death_is_told_in_the_engines_words(name: str, step: int) -> None:
    assert verdict(recorded(name), step) == CRASHES[name]


@pytest.mark.parametrize("name", sorted(path.name for path in LOGS.glob("*healthy*.log")))
def test_a_healthy_engine_says_nothing_of_the_kind(name: str) -> None:
    data = recorded(name)
    assert data.count(MARK.encode()) > 30
    assert verdict(data) == ""


def test_the_first_words_come_from_the_worker_itself() -> None:
    """Not from who noticed later: the worker's exception is closed before the engine's is read."""
    watch = DeathWatch(MARK)
    said = ""
    for number, line in enumerate(recorded("033-crash-in-warm-up.log").splitlines(keepends=True)):
        watch.feed(line, number / 1000)
        said = said or watch.verdict(number / 1000)
    assert said == CRASHES["033-crash-in-warm-up.log"]


def said(
    text: str, level: str = "ERROR", place: str = "multiproc_executor.py:1189", process: str = "Worker_TP0"
) -> str:
    """One message as vLLM's formatter writes it: its prefix again after every line break."""
    prefix = f"{MARK}({process} pid=7) {level} 11-26 10:00:00 [{place}] "
    return prefix + text.replace("\n", "\r\n" + prefix) + "\n"


def traceback(method: str, error: str, outer: str = "_execute_worker_rpc") -> str:
    return (
        "WorkerProc hit an exception.\nTraceback (most recent call last):\n"
        f'  File "/opt/engine/vllm/v1/executor/multiproc_executor.py", line 1177, in {outer}\n    output = func()\n'
        f'  File "/opt/engine/vllm/v1/worker/gpu_worker.py", line 9, in {method}\n    return work()\n{error}'
    )


@pytest.mark.parametrize("outer", ["worker_busy_loop", "_execute_worker_rpc"])
@pytest.mark.parametrize("method", ["execute_model", "load_model", "sample_tokens"])
def test_a_worker_that_fails_in_its_work_is_dead(method: str, outer: str) -> None:
    text = said(traceback(method, "torch.OutOfMemoryError: CUDA out of memory.", outer))
    assert verdict(text.encode()) == (
        f"Worker_TP0: WorkerProc hit an exception. in {method}: torch.OutOfMemoryError: CUDA out of memory."
    )


@pytest.mark.parametrize("method", ["add_lora", "profile", "update_weights"])
def test_a_call_that_may_fail_is_no_death(method: str) -> None:
    assert verdict(said(traceback(method, "ValueError: no such adapter")).encode()) == ""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("WorkerProc failed.", "multiproc_executor.py:1063"),
        ("WorkerProc failed to start.", "v1/executor/multiproc_executor.py:1057"),
        ("EngineCore failed to start.", "core.py:1584"),
        ("EngineCore encountered a fatal error.", "core.py:1586"),
        ("AsyncLLM output_handler failed.", "async_llm.py:943"),
        ("RayWorkerProc rank=[1] died unexpectedly, shutting down executor.", "ray_executor_v2.py:522"),
        ("Worker proc VllmWorker-0 died unexpectedly (exit code: -9), ", "multiproc_executor.py:380"),
    ],
)
def test_every_kind_of_words(text: str, place: str) -> None:
    assert verdict(said(text, place=place).encode()) == f"Worker_TP0: {text.strip()}"
    assert verdict(said(text, "INFO", place).encode()) == ""
    assert verdict(said(text, place="serving.py:1").encode()) == ""
    assert verdict(said(f"the client wrote: {text}", place=place).encode()) == ""


def test_coloured_records_are_read_too() -> None:
    """With VLLM_LOGGING_COLOR=1, vLLM colours the process, the level and the place."""
    line = said("WorkerProc failed.", place="multiproc_executor.py:1063")
    for plain, colour in (("(Worker_TP0 pid=7)", "0;36"), ("ERROR", "31"), ("[multiproc_executor.py:1063]", "90")):
        line = line.replace(plain, f"\x1b[{colour}m{plain}\x1b[0m")
    assert verdict(line.encode()) == "Worker_TP0: WorkerProc failed."


FORGED = [
    said(traceback("execute_model", "RuntimeError: forged")).replace(MARK, ""),
    said("EngineCore encountered a fatal error.", place="core.py:1586").replace(MARK, ""),
    said("Worker proc VllmWorker-0 died unexpectedly", place="multiproc_executor.py:380").replace(MARK, "<00> "),
]


@pytest.mark.parametrize("forged", FORGED)
def test_a_client_cannot_say_them(forged: str) -> None:
    """Printed as it is, or as the text of any record of vLLM's own, whatever line breaks it holds."""
    assert verdict(forged.encode()) == ""
    for text in (forged, f"prompt: '{forged}'", f"\n{forged}", f"x\r{forged}", f"x\n\n{forged}"):
        for level, place in (("ERROR", "serving_chat.py:200"), ("INFO", "logger.py:30"), ("ERROR", "core.py:2165")):
            assert verdict(said(text, level, place, "APIServer").encode()) == ""
            assert verdict(text.encode()) == ""


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200), st.sampled_from(FORGED), st.sampled_from(["serving.py:1", "core.py:2165"]))
def test_no_text_around_it_helps(noise: str, forged: str, place: str) -> None:
    assert verdict((said(noise + forged + noise, place=place) + noise + forged).encode()) == ""


def test_the_formatter_is_as_supposed() -> None:
    """vLLM's own, as of 0.32 and 0.33: `msg.replace("\\n", "\\r\\n" + prefix)`."""
    record = logging.LogRecord("vllm", logging.ERROR, "core.py", 1586, "one\ntwo", None, None)
    line = logging.Formatter(f"{MARK}(EngineCore pid=7) %(levelname)s 11-26 10:00:00 [core.py:%(lineno)d] %(message)s")
    prefix, _, _ = line.format(record).partition("one")
    assert said("one\ntwo", place="core.py:1586", process="EngineCore") == (
        line.format(record).replace("\n", "\r\n" + prefix) + "\n"
    )


def test_every_entry_names_its_source() -> None:
    assert all(re.search(r"vllm/v1/\S+\.py.*\(.*0\.33\)", words.source) for words in WORDS)


@given(st.lists(st.sampled_from([MARK, MARK[:7], MARK[9:], "text\n", "<"]), max_size=8), st.integers(1, 50))
def test_the_mark_is_taken_out_wherever_a_read_cuts_it(parts: list[str], step: int) -> None:
    data = "".join(parts).encode()
    remover, passed = MarkRemover(MARK), b""
    for at in range(0, len(data), step):
        passed += remover.feed(data[at : at + step])
    assert passed + remover.rest() == data.replace(MARK.encode(), b"")
