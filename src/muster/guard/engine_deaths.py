"""The engine's own words for a dead worker, told from everything else in its output. Pure.

A rank that dies often leaves the engine's processes alive: `/health` stays 200, and requests hang until the stall
timeout. But the process that saw the death logs it at once. Those words end the generation and become its failure.

Clients cannot forge them: the guard gives vLLM a random mark to begin its log records with (VLLM_LOGGING_PREFIX, which
does not enter the keys of compile caches), and vLLM's formatter repeats it after every line break in a message. A line
counts only as a record of vLLM's own, of a level, file and text in WORDS; what a client puts into a prompt or a name
remains the text of some other record. If the unit's environment sets a prefix or a logging configuration of its own, or
a rank dies silently, the engine is judged by its processes and answers alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .load_times import LoadTimes

SETTING = "VLLM_LOGGING_PREFIX"
OVERRIDES = (SETTING, "VLLM_LOGGING_CONFIG_PATH", "VLLM_CONFIGURE_LOGGING")
"""Variables with which an operator has decided otherwise about log lines."""
LINE_LIMIT = 64 * 1024
"""Bytes of a line that are looked at."""
RECORDS = 64
"""Tracebacks followed at one time."""
SETTLED = 1.0
"""Seconds after which a traceback counts as complete."""
REASON_LIMIT = 500


@dataclass(frozen=True)
class Words:
    """One record that means a dead worker.

    Attributes:
        file: the source file that logs it.
        text: its first line.
        traceback: whether a traceback follows.
        only_in: worker methods, one of which the traceback must go through; empty if every such record is a death.
        source: where vLLM says so, and in which versions that was read.
    """

    file: str
    text: re.Pattern[str]
    traceback: bool
    source: str
    only_in: frozenset[str] = frozenset()


def marked(env: Mapping[str, str], mark: str) -> dict[str, str]:
    """Variables that have an engine begin its log records with `mark`; none where an operator has decided otherwise."""
    return {} if any(name in env for name in OVERRIDES) else {SETTING: mark}


FATAL_METHODS = frozenset({
    *("init_device", "load_model", "determine_available_memory", "get_kv_cache_spec", "initialize_from_config"),
    *("compile_or_warm_up_model", "execute_model", "sample_tokens", "execute_dummy_batch"),
})  # fmt: skip
"""A worker that fails in one of these is lost. Others, such as adding an adapter, may fail without harm."""

_EXECUTOR = "vllm/v1/executor/multiproc_executor.py"
WORDS = (
    Words(
        "multiproc_executor.py",
        re.compile(r"Worker proc \S{1,80} died unexpectedly"),
        False,
        f"{_EXECUTOR}, monitor_workers (0.32, 0.33)",
    ),
    Words(
        "multiproc_executor.py",
        re.compile(r"WorkerProc hit an exception\."),
        True,
        f"{_EXECUTOR}, worker_busy_loop (0.32), _execute_worker_rpc (0.33)",
        FATAL_METHODS,
    ),
    Words(
        "multiproc_executor.py",
        re.compile(r"WorkerProc failed( to start)?\."),
        True,
        f"{_EXECUTOR}, worker_main (0.32, 0.33)",
    ),
    Words(
        "core.py",
        re.compile(r"EngineCore (failed to start|encountered a fatal error)\."),
        True,
        "vllm/v1/engine/core.py, run_engine_core (0.32, 0.33)",
    ),
    Words(
        "async_llm.py",
        re.compile(r"AsyncLLM output_handler failed\."),
        True,
        "vllm/v1/engine/async_llm.py, output_handler (0.32, 0.33)",
    ),
    Words(
        "ray_executor_v2.py",
        re.compile(r"RayWorkerProc (rank=\S{1,200} died unexpectedly|failed: )"),
        True,
        "vllm/v1/executor/ray_executor_v2.py (0.32, 0.33)",
    ),
)

_RECORD = re.compile(
    r"\((?P<process>[^()\n]{1,80} pid=\d{1,10})\) (?P<level>[A-Z]{4,8}) \d\d-\d\d \d\d:\d\d:\d\d "
    r"\[(?P<place>[\w./]{1,200}:\d{1,6})\] ?(?P<text>.*)"
)
"""A record of vLLM's own formatter, after its mark (vllm/logger.py, 0.32 and 0.33)."""
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,12}m")
_FRAME = re.compile(r'  File "[^"]*/v1/worker/[^"/]+\.py", line \d+, in (\w+)')
_OUTER = re.compile(r'  File "[^"]*/multiproc_executor\.py", line \d+, in (?:worker_busy_loop|_execute_worker_rpc)$')
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]{0,100}(: .*)?$")


@dataclass
class _Record:
    """A record whose traceback is still being read."""

    words: Words
    reason: str
    begun: float
    frames: int = 0
    method: str = ""
    exception: str = ""
    foreign: bool = False
    """The traceback does not begin at the worker's own loop: its frames prove nothing."""

    def add(self, text: str) -> None:
        if self.exception or text.startswith("Traceback "):
            return
        if not text.startswith(" "):
            if self.frames and _EXCEPTION.match(text):
                self.exception = text
            return
        if text.startswith('  File "'):
            self.foreign = self.foreign or (self.frames == 0 and not _OUTER.match(text))
            self.frames += 1
            frame = _FRAME.match(text)
            if frame and not self.method and not self.foreign and frame[1] in FATAL_METHODS:
                self.method = frame[1]

    def verdict(self) -> str:
        if self.words.only_in and self.method not in self.words.only_in:
            return ""
        where = f" in {self.method}" if self.method else ""
        why = f": {self.exception}" if self.exception else ""
        return f"{self.reason}{where}{why}"[:REASON_LIMIT]


@dataclass
class DeathWatch:
    """Reads one child's raw output. `mark` is what its records begin with."""

    mark: str
    loads: LoadTimes = field(default_factory=LoadTimes)
    _rest: bytes = b""
    _open: dict[tuple[str, str], _Record] = field(default_factory=dict)
    _found: str = ""

    def feed(self, data: bytes, now: float) -> None:
        """More output, as it comes."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-LINE_LIMIT:]
        mark = self.mark.encode()
        for line in lines:
            # Anywhere in the line: a progress bar of another process may stand before it.
            _, marked, record = line[:LINE_LIMIT].rpartition(mark)
            if marked:
                self._record(_COLOUR.sub("", record.decode("utf-8", "replace")).rstrip("\r"), now)

    def verdict(self, now: float) -> str:
        """Why the engine is dead, by its own words; empty while it has not said so."""
        for key, record in list(self._open.items()):
            # In order: the first to speak is nearest to the cause.
            if self._found or not (record.exception or now - record.begun >= SETTLED or not record.words.traceback):
                break
            self._found = self._open.pop(key).verdict()
        return self._found

    def _record(self, line: str, now: float) -> None:
        match = _RECORD.match(line)
        if match is None:
            return
        if match["level"] == "INFO":
            self.loads.hear(match["text"])
            return
        key = (match["process"], match["place"])
        if key in self._open and match["level"] in ("ERROR", "CRITICAL"):
            self._open[key].add(match["text"])
            return
        if match["level"] not in ("ERROR", "CRITICAL") or len(self._open) >= RECORDS:
            return
        file = match["place"].rpartition(":")[0].rpartition("/")[2]
        for words in WORDS:
            found = words.text.match(match["text"]) if words.file == file else None
            if found:
                self._open[key] = _Record(words, f"{match['process'].split()[0]}: {match['text'].strip()}", now)


class MarkRemover:
    """Takes the mark out of the output that people read, wherever a read happens to cut it."""

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now; at most a part of a mark is held back."""
        data = (self._held + data).replace(self._mark, b"")
        keep = next((size for size in range(len(self._mark) - 1, 0, -1) if data.endswith(self._mark[:size])), 0)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep]

    def rest(self) -> bytes:
        """What is still held back, once there is no more."""
        held, self._held = self._held, b""
        return held
