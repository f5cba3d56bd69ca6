"""Weights in the page cache: what is there of them, that the rest comes back, when not, and what a guard says of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from muster.guard import page_cache_program
from muster.guard.page_cache import GRACE, INTERVAL, MOST, SILENT, Keeper
from tests.cached_files import cached, files_of, forget, share

MIB = 1 << 20
NOBODY = 65534
PLENTY = "MemTotal: 64000000 kB\nMemFree: 1 kB\nMemAvailable: 32000000 kB\n"
LITTLE = "MemTotal: 64000000 kB\nMemFree: 1 kB\nMemAvailable: 8400000 kB\n"


def as_user(user: int, what: Callable[[], Any]) -> Any:
    """Return what a process of another user gets; of this one, where this one may not be another."""
    report, out = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(user, user, user)
                os.setresuid(user, user, user)
            os.write(out, json.dumps(what()).encode())
        finally:
            os._exit(0)
    os.close(out)
    with os.fdopen(report) as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text)


@pytest.fixture
def shown() -> Iterator[Path]:
    """Return a directory on the disk that every user may read."""
    place = Path(tempfile.mkdtemp(dir="/var/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def test_share_is_what_the_cache_holds(tmp_path: Path) -> None:
    paths = files_of(tmp_path, 32 * MIB, 32 * MIB)
    names = [str(path) for path in paths]
    for path in paths:
        forget(path)
    assert share(names) < 0.02
    paths[1].read_bytes()
    assert 0.45 < share(names) < 0.55
    assert cached(paths[0]) < 8 * MIB, "a question reads no more than its own page"
    paths[0].read_bytes()
    assert share(names) > 0.99


def test_other_pages_are_asked_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that was asked is there afterwards; one of each equal part, so that few questions tell much."""
    names = [str(path) for path in files_of(tmp_path, 3 * MIB, MIB + 1, 0, 7)]
    asked: list[int] = []

    def is_there(handle: int, at: int) -> bool:
        asked.append(at)
        assert at < os.fstat(handle).st_size
        return at % 2 == 0

    monkeypatch.setattr(page_cache_program, "is_there", is_there)
    for seed in (1, 1, 2, None, None):
        share(names, 64, seed)
    looks = [tuple(asked[at : at + 64]) for at in range(0, len(asked), 64)]
    assert (len(looks), len(set(looks)), looks[0]) == (5, 4, looks[1])
    part = (4 * MIB + 8) / 64
    assert [int(at / part) for at in looks[0][:48]] == list(range(48))


def test_a_disk_that_is_as_swift_as_the_cache_does_not_pass_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [str(path) for path in files_of(tmp_path, MIB)]
    monkeypatch.setattr(page_cache_program, "SWIFT", 0.0)
    assert share(names, 64) == 0.0
    answers = iter([None, True] * 16 + [None, False] * 16 + [None, None, None] * 16 + [True] * 16)
    monkeypatch.setattr(page_cache_program, "is_there", lambda handle, at: next(answers))
    assert share(names, 64) == 0.5


def test_share_is_the_truth_for_who_may_only_read_the_files(shown: Path) -> None:
    """As weights are root's, and the guard is not: mincore says then that all is there."""
    (path,) = files_of(shown, 32 * MIB)
    path.chmod(0o644)
    forget(path)
    assert as_user(NOBODY, lambda: share([str(path)])) < 0.02
    path.read_bytes()
    assert as_user(NOBODY, lambda: share([str(path)])) > 0.99


def test_share_of_what_cannot_be_asked_is_nothing(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path, MIB)
    empty, link, pipe = tmp_path / "empty", tmp_path / "link", tmp_path / "pipe"
    empty.touch()
    link.symlink_to(path)
    os.mkfifo(pipe)
    assert share([str(path)]) > 0.99
    for paths in ([], [empty], [path, link], [pipe], [tmp_path / "gone", path]):
        assert share([str(each) for each in paths]) == 0.0


def run(directory: Path, seconds: float = 60.0, *more: str) -> list[dict[str, Any]]:
    """Return what the program says, as the guard starts it."""
    argv = [sys.executable, "-I", "-S", page_cache_program.__file__, str(directory), str(seconds), *more]
    ran = subprocess.run(argv, env={}, capture_output=True, text=True, timeout=120)
    assert ran.stderr == ""
    said = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == ("problem" in said[-1])
    return said


def test_the_program_brings_back_what_is_missing(tmp_path: Path) -> None:
    paths = files_of(tmp_path, 24 * MIB, 24 * MIB + 5, 16 * MIB)
    other = tmp_path / "notes.bin"
    shutil.copy(paths[0], other)
    os.sync()
    for path in (*paths[:2], other):
        forget(path)
    (tmp_path / "meminfo").write_text(PLENTY)
    found, done = run(tmp_path, 60.0, str(tmp_path / "meminfo"))
    total = sum(path.stat().st_size for path in paths)
    assert (found["bytes"], found["reads"], found["short"]) == (total, True, "")
    assert 0.2 * total < found["there"] < 0.35 * total
    assert (done["now"] > 0.98 * total, done["why"]) == (True, "")
    assert sum(map(cached, paths)) > 0.97 * total
    assert cached(other) == 0
    (again,) = run(tmp_path, 60.0, str(tmp_path / "meminfo"))
    assert (again["there"] > 0.98 * total, again["reads"]) == (True, False)


def test_nothing_is_read_where_memory_is_short(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path, 32 * MIB)
    forget(path)
    (tmp_path / "meminfo").write_text(LITTLE)
    (found,) = run(tmp_path, 60.0, str(tmp_path / "meminfo"))
    assert found["reads"] is False
    assert found["short"] == "0.0 GB and 8.6 GB that stay free are needed, 8.6 GB are available"
    assert cached(path) < 8 * MIB


def fill(directory: Path, until: float = float("inf"), meminfo: str = "/proc/meminfo") -> str:
    handle = page_cache_program.open_directory(str(directory))
    try:
        return page_cache_program.fill(handle, page_cache_program.names_in(handle), until, meminfo)
    finally:
        os.close(handle)


def test_reading_stops_when_memory_becomes_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = files_of(tmp_path, 64 * MIB)
    forget(path)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(PLENTY)

    def meanwhile(seconds: float) -> None:
        meminfo.write_text(LITTLE)

    monkeypatch.setattr(page_cache_program, "LOOK", 0.0)
    monkeypatch.setattr(page_cache_program, "_SLEEP", 0.0)
    monkeypatch.setattr(time, "sleep", meanwhile)
    assert "that stay free are needed" in fill(tmp_path, meminfo=str(meminfo))
    assert cached(path) < 32 * MIB


def test_reading_stops_in_time_and_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = files_of(tmp_path, 64 * MIB)
    forget(path)
    (tmp_path / "meminfo").write_text(PLENTY)
    assert fill(tmp_path, time.monotonic(), str(tmp_path / "meminfo")) == "it took too long"
    assert cached(path) < 8 * MIB
    pauses: list[float] = []
    monkeypatch.setattr(page_cache_program, "_SLEEP", 0.0)
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert fill(tmp_path, meminfo=str(tmp_path / "meminfo")) == ""
    assert sum(pauses) > 0


def test_the_reserve_is_a_share_of_much_and_a_floor_of_little(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {2000 << 20} kB\nMemAvailable: {1200 << 20} kB\n")
    assert page_cache_program.short_of(1000 << 30, str(meminfo)) == ""
    # 200 GiB: what is there of the weights is available, so that all of them count and not what is missing.
    assert "1,288 GB are available" in page_cache_program.short_of(1001 << 30, str(meminfo))
    meminfo.write_text(f"MemTotal: {32 << 20} kB\nMemAvailable: {20 << 20} kB\n")
    assert page_cache_program.short_of(12 << 30, str(meminfo)) == ""
    assert page_cache_program.short_of(13 << 30, str(meminfo)) != ""


def test_what_others_may_have_put_there_is_not_read(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path / "other", MIB)
    mine = tmp_path / "mine"
    mine.mkdir()
    assert run(mine) == [{"problem": "0 files are *.safetensors, needed 1 to 4096"}]
    (mine / "model.safetensors").symlink_to(path)
    assert "symbolic links" in run(mine)[0]["problem"]
    mine.chmod(0o777)
    assert "(mode 0777), not to root" in run(mine)[0]["problem"]
    if os.geteuid() == 0:
        mine.chmod(0o755)
        os.chown(mine, NOBODY, NOBODY)
        assert f"belongs to user {NOBODY}" in run(mine)[0]["problem"]


def test_the_program_stands_back() -> None:
    def priorities() -> list[int]:
        page_cache_program.stand_back()
        libc = page_cache_program.ctypes.CDLL(None)
        get = {"x86_64": 252, "aarch64": 31}.get(page_cache_program.platform.machine())
        return [os.nice(0), libc.syscall(get, 1, 0) >> 13 if get else 3]

    assert as_user(NOBODY, priorities) == [19, 3]


class Program:
    """Stands for the process: it says and does what a test has it say and do."""

    def __init__(self) -> None:
        report, self._out = os.pipe()
        os.set_blocking(report, False)
        self.stdout = os.fdopen(report, "rb")
        self.status: int | None = None
        self.signals: list[int] = []

    def says(self, line: object, end: bytes = b"\n") -> None:
        os.write(self._out, (line if isinstance(line, bytes) else json.dumps(line).encode()) + end)

    def ends(self, status: int = 0) -> None:
        self.status = status
        os.close(self._out)

    def poll(self) -> int | None:
        return self.status

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


class Host:
    """One keeper, its clock and its programs."""

    def __init__(self, directory: str = "/w", failure: OSError | None = None) -> None:
        self.now, self.lines, self.programs = 1000.0, list[str](), list[Program]()
        self.failure, self.argv, self.env = failure, list[str](), dict[str, str]()
        self.shares: list[float] = []
        self.keeper = Keeper(directory, "i1", self.shares.append, self.start)

    def start(self, argv: Sequence[str], env: Mapping[str, str]) -> Program:
        if self.failure is not None:
            raise self.failure
        self.argv, self.env = list(argv), dict(env)
        self.programs.append(Program())
        return self.programs[-1]

    def passes(self, seconds: float, *, age: float = 100.0, loaded: bool = True) -> list[str]:
        self.now += seconds
        return self.keeper.tick(self.now, age, loaded)

    def looks(self, *lines: object, after: float = INTERVAL, status: int = 0) -> list[str]:
        """A whole look; what the guard writes of it."""
        before = len(self.programs)
        said = self.passes(after)
        assert len(self.programs) == before + 1
        for line in lines:
            self.programs[-1].says(line)
            said += self.passes(1)
        self.programs[-1].ends(status)
        return said + self.passes(1)


THERE, ALL = 412_000_000_000, 512_000_000_000
GOOD = {"there": ALL, "bytes": ALL, "reads": False, "short": ""}
READS = {"there": THERE, "bytes": ALL, "reads": True, "short": ""}
DONE = {"now": ALL, "seconds": 190.2, "why": ""}


def test_a_keeper_looks_again_and_again_and_says_what_was_read() -> None:
    host = Host()
    assert host.looks(GOOD, after=0) == []
    assert host.argv[1:] == ["-I", "-S", page_cache_program.__file__, "/w", str(MOST)]
    assert host.env == {"MUSTER_INSTANCE": "i1"}
    assert host.passes(INTERVAL - 3) == []
    assert len(host.programs) == 1
    assert host.looks(READS, DONE) == [
        "page cache: 412 GB of 512 GB of weights are there, the rest is read",
        "page cache: 412 GB of 512 GB of weights were there, the rest was read in 190 s",
    ]
    assert host.shares == [1.0, THERE / ALL, 1.0]


def test_a_keeper_waits_for_the_engines_own_load() -> None:
    host = Host()
    for age in (0.0, SILENT - 1):
        assert host.passes(1, age=age, loaded=False) == []
    assert host.programs == []
    host.passes(1, age=SILENT, loaded=False)
    assert len(host.programs) == 1
    nothing = Host(directory="")
    nothing.passes(1, age=1e6)
    assert nothing.programs == []


def test_what_does_not_stay_is_read_less_often() -> None:
    host = Host()
    pauses = []
    for _ in range(6):
        began = host.now
        while not host.keeper._process:
            host.passes(10)
        pauses.append(host.now - began)
        host.programs[-1].says(READS)
        host.programs[-1].says({**DONE, "now": THERE, "why": "what is read does not stay"})
        host.programs[-1].ends()
        (_, line) = host.passes(0)
    assert pauses == [10, 600, 1200, 2400, MOST, MOST]
    assert line.endswith("were there, 412 GB are after 190 s, and no more is read: what is read does not stay")
    host.looks(GOOD, after=MOST)
    host.looks(GOOD, after=INTERVAL)


def test_what_lasts_is_said_once() -> None:
    host = Host()
    short = {"there": THERE, "bytes": ALL, "reads": False, "short": "512 GB are needed, 300 GB are available"}
    assert host.looks(short) == ["page cache: weights are not kept there: 512 GB are needed, 300 GB are available"]
    assert host.looks(short) == []
    assert host.looks({"problem": "no\nfiles"}, status=1) == ["page cache: weights are not kept there: no files"]
    assert host.looks({"problem": "no files"}, status=1) == []
    assert host.looks(status=-9) == ["page cache: the program that reads weights was killed by SIGKILL"]
    assert host.looks(status=-9) == []
    host.failure = OSError(12, "Cannot allocate memory")
    (line,) = host.passes(INTERVAL)
    assert line.endswith("cannot be started: [Errno 12] Cannot allocate memory")
    assert host.passes(INTERVAL) == []
    host.failure = None
    assert host.looks(GOOD) == []


@pytest.mark.parametrize("line", [b"[]", b"7", b'{"there": 1}', b"\xff", b'{"now": "x", "why": ""}', b"{" * 9999])
def test_nonsense_harms_no_guard(line: bytes) -> None:
    host = Host()
    assert len(host.looks(line, status=1)) <= 1
    assert host.looks(GOOD) == []


def test_a_program_that_hangs_is_killed_and_no_other_is_started() -> None:
    host = Host()
    host.passes(0)
    host.programs[0].says(READS, end=b"")
    assert host.passes(MOST) == []
    assert host.programs[0].signals == []
    host.passes(GRACE + 1)
    assert host.programs[0].signals == [signal.SIGKILL]
    host.passes(MOST)
    assert len(host.programs) == 1, "it may hang in the disk"


@pytest.mark.parametrize(
    "line",
    [
        {"there": 1, "bytes": 0, "reads": True, "short": ""},
        {"there": 10**3000, "bytes": 1, "reads": True, "short": ""},
        {"there": "all", "bytes": [], "reads": 1, "short": 0},
    ],
)
def test_what_another_program_could_write_there_ends_nothing(line: object) -> None:
    host = Host()
    assert host.looks(line, after=0) == ["page cache: what the program that reads weights says is not understood"]
    assert host.looks(b"[" * 60_000) == []
    assert host.looks(READS, {**DONE, "seconds": 10**400}) == [
        "page cache: 412 GB of 512 GB of weights are there, the rest is read"
    ]


def test_the_end_of_a_life_is_the_programs() -> None:
    host = Host()
    host.keeper.end()
    host.keeper.close()
    host.passes(0)
    host.keeper.end()
    assert host.programs[0].signals == [signal.SIGKILL]
    host.keeper.close()
    assert host.programs[0].stdout.closed


def test_a_real_program_under_a_keeper(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path, 16 * MIB)
    keeper = Keeper(str(tmp_path), "i1", lambda share: None)
    assert keeper.tick(0.0, 100.0, True) == []
    process = keeper._process
    process.wait(60)
    assert keeper.tick(1.0, 100.0, True) == []
    assert (keeper._process, keeper._next, process.stdout.closed) == (None, 1.0 + INTERVAL, True)
    forget(path)
    assert share([str(path)]) < 0.1
