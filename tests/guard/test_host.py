"""What the guard does on its host: cgroups, titles, children, checks, the kernel log, and what it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.guard import cgroup, children, failure_bundle, start_checks, state_store
from muster.guard.cgroup import Fence, Titles
from muster.guard.children import Children, Journal
from muster.guard.config import FATAL_XIDS
from muster.guard.group_settings import Checks, Child, Port, Probe
from muster.guard.messages import Failure
from muster.guard.restart_policy import Memory
from muster.guard.sd_notify import Notifier
from muster.guard.state_store import BUNDLE_LIMIT, BUNDLES, Store
from muster.guard.xids import KernelLog

from .loopback import wait_for

UNIT = "muster-g.service"


@pytest.fixture
def mark() -> Iterator[str]:
    """An instance; whoever still carries it at the end is killed."""
    name = os.urandom(8).hex()
    yield name
    asyncio.run(Fence("", name).kill(10))


@pytest.mark.parametrize(
    ("lines", "folder"),
    [
        ("0::/system.slice/muster-g.service\n", "system.slice/muster-g.service"),
        ("4:memory:/x\n0::/system.slice/muster-g.service/inner\n", "unified/system.slice/muster-g.service"),
        ("1:name=systemd:/system.slice/muster-g.service\n0::/\n", "systemd/system.slice/muster-g.service"),
        ("0::/user.slice/session-1.scope\n", ""),
        ("0::/system.slice/muster-other.service\n", ""),
    ],
    ids=["v2", "hybrid", "v1", "a shell", "another unit"],
)
def test_the_cgroup_is_found_in_whichever_hierarchy_holds_it(tmp_path: Path, lines: str, folder: str) -> None:
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(lines)
    if folder:
        (root / folder / "deep").mkdir(parents=True)
        (root / folder / "cgroup.procs").write_text(f"{os.getpid()}\n41\n")
        (root / folder / "deep" / "cgroup.procs").write_text("42\n43\n")
        for pid, letter in ((41, "S"), (42, "D"), (43, "Z")):
            (proc / str(pid)).mkdir()
            (proc / str(pid) / "stat").write_text(f"{pid} (a) b) {letter} 1 1")
    fence = Fence(UNIT, "i", str(root), str(proc))
    assert fence.is_cgroup is bool(folder)
    if folder:
        assert fence.pids() == [41, 42]
        fence.helpers = {42}
        assert fence.pids() == [41]


def test_orphans_in_sessions_of_their_own_are_killed(mark: str) -> None:
    script = (
        "import os, time\nfor _ in range(3):\n os.fork()\n"
        " os.setsid() if os.getpid() != os.getsid(0) else 0\ntime.sleep(600)"
    )
    started = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, cgroup.INSTANCE: mark})
    fence = Fence("", mark)
    wait_for(lambda: len(fence.pids()) == 8)
    assert len(fence.describe()) == 8
    assert asyncio.run(fence.kill(10)) == []
    assert started.wait(10) == -signal.SIGKILL


def test_a_missing_engine_process_is_noticed_at_the_second_look(tmp_path: Path) -> None:
    def here(pid: int, title: str, begun: int) -> None:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(title.encode() + b"\0")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (x) S " + " ".join(["0"] * 18) + f" {begun} 0")

    pids: list[int] = []
    titles = Titles(("VLLM::",), lambda: pids, str(tmp_path))
    here(10, "VLLM::EngineCore_DP0", 100)
    here(11, "VLLM::EngineCore_DP0", 200)  # Forked by the first: carries its title, and ends when it likes.
    here(12, "python3 -m compile_worker", 150)
    pids += [12, 11, 10]
    assert titles.scan() == ""
    pids.remove(12)
    pids.remove(11)
    assert [titles.scan() for _ in range(3)] == ["", "", ""]
    pids.remove(10)
    assert titles.scan() == ""
    assert titles.scan() == "VLLM::EngineCore_DP0 (pid 10)"


def test_the_memory_of_a_process_stuck_in_a_driver_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "10").mkdir()
    (tmp_path / "10" / "stat").write_text("10 (VLLM::Worker (1)) D 1 1")
    # Nobody writes to it: whoever opens it waits, as for the lock of a stuck process's memory.
    os.mkfifo(tmp_path / "10" / "cmdline")
    asked = threading.Thread(target=lambda: told.append(cgroup.title(10, str(tmp_path))), daemon=True)
    told: list[str] = []
    asked.start()
    asked.join(5)
    assert told == ["[VLLM::Worker (1)]"]


def test_without_prefixes_no_process_is_watched() -> None:
    titles = Titles((), lambda: [os.getpid()])
    assert [titles.scan(), titles.scan()] == ["", ""]


def test_the_journal_never_blocks_and_drops_the_oldest() -> None:
    reader, writer = os.pipe()
    try:
        journal = Journal(writer)
        for number in range(40):
            journal.write(bytes([65 + number % 26]) * 65536)
        assert journal._size <= children.BACKLOG
        taken = b""
        os.set_blocking(reader, False)
        for _ in range(200):
            journal.flush()
            try:
                taken += os.read(reader, 65536)
            except BlockingIOError:
                break
        assert journal._size == 0
        assert taken.endswith(bytes([65 + 39 % 26]) * 65536)
    finally:
        os.close(reader)
        os.close(writer)


class Run:
    """Children under a loop of their own, for one test."""

    def __init__(self, mark: str, *plan: tuple[Child, list[str]]) -> None:
        self.reader, self.writer = os.pipe()
        self.failures: list[Failure] = []
        self.mark = mark
        self.children = Children(plan, {"VLLM_API_KEY": "secret"}, Journal(self.writer), self.failures.append)

    async def until_failure(self, seconds: float = 20.0) -> None:
        await self.children.start("g1", "g", self.mark)
        for _ in range(int(seconds * 20)):
            self.children.reap()
            if self.failures:
                return
            await asyncio.sleep(0.05)

    def printed(self) -> str:
        return os.read(self.reader, 1 << 20).decode()


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_a_child_gets_its_environment_and_none_of_systemds(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in children.OURS:
        monkeypatch.setenv(name, "the guard's own")
    names = ["A", "MUSTER_GENERATION", "MUSTER_GROUP", "MUSTER_INSTANCE", "VLLM_API_KEY", *children.OURS]
    show = python(f"import os; print([os.environ.get(name) for name in {names}])")
    run = Run(mark, (Child("vllm", {"A": "1"}), show))
    asyncio.run(run.until_failure())
    assert run.printed().strip() == str(["1", "g1", "g", mark, "secret", *[None] * len(children.OURS)])
    assert [(each.process, each.reason) for each in run.failures] == [("vllm", "vllm ended with status 0")]


def test_the_last_lines_are_kept_and_the_rest_is_not(mark: str) -> None:
    run = Run(mark, (Child("vllm"), python("print('x' * 300000); print('last words'); raise SystemExit(3)")))

    async def drained() -> None:
        task = asyncio.ensure_future(run.until_failure())
        while not task.done():
            os.set_blocking(run.reader, False)
            with contextlib.suppress(BlockingIOError):
                os.read(run.reader, 1 << 20)
            await asyncio.sleep(0.01)

    asyncio.run(drained())
    (failed,) = run.failures
    assert failed.reason == "vllm ended with status 3"
    assert failed.lines.endswith("last words\n")
    assert len(failed.lines) <= 15_000
    assert run.children.running[0].kept <= children.KEPT + children.CHUNK


def test_children_start_in_order_when_their_conditions_hold(mark: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    ray = Child("ray", ready=Probe(command=("test", "-e", str(flag)), interval=0.05))
    vllm = Child("vllm", wait=(Probe(command=("test", "-e", str(flag)), interval=0.05),))
    wait = python("import time; time.sleep(600)")
    run = Run(mark, (ray, wait), (vllm, python("raise SystemExit(7)")))

    async def work() -> None:
        task = asyncio.ensure_future(run.until_failure())
        await asyncio.sleep(0.5)
        assert [each.child.name for each in run.children.running] == ["ray"]
        assert run.children.detail.startswith("ray is not ready: test -e")
        flag.touch()
        await task

    asyncio.run(work())
    assert [each.child.name for each in run.children.running] == ["ray", "vllm"]
    assert run.failures[0].reason == "vllm ended with status 7"


def test_what_cannot_be_started_is_a_failure_and_is_found_before(mark: str) -> None:
    run = Run(mark, (Child("vllm", {"PATH": "/nonexistent"}), ["vllm", "serve"]))
    assert run.children.executable_missing() == (
        "vllm is not in PATH=/nonexistent; run the deploy to install the engine"
    )
    asyncio.run(run.until_failure())
    assert run.failures[0].reason.startswith("vllm cannot be started: ")


def test_a_tcp_condition_holds_once_somebody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        probe = Probe(tcp=("127.0.0.1", listener.getsockname()[1]), timeout=1.0)
        assert asyncio.run(children.holds(probe, {})) is False
        listener.listen()
        assert asyncio.run(children.holds(probe, {})) is True


def test_a_command_that_hangs_is_cut_off() -> None:
    began = time.monotonic()
    assert asyncio.run(children.output(["sleep", "600"], 0.3)) == (124, "sleep did not end within 0.3 s")
    assert time.monotonic() - began < 60
    assert asyncio.run(children.output(["no-such-command"], 1))[0] == 127


def test_exit_statuses_in_words() -> None:
    assert [children.how(status) for status in (0, 3, -9, -99)] == [
        "ended with status 0",
        "ended with status 3",
        "was killed by SIGKILL",
        "was killed by 99",
    ]


GPU = ("printf", "GPU-0\nGPU-1\n")


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Checks(), ""),
        (Checks(gpus=2, gpu_command=GPU, apps_command=("true",)), ""),
        (
            Checks(gpus=8, gpu_command=GPU, apps_command=("true",)),
            "2 GPUs are visible, needed 8; see nvidia-smi and the kernel log",
        ),
        (
            Checks(gpus=2, gpu_command=("sh", "-c", "echo No devices; exit 9"), apps_command=("true",)),
            "`sh -c echo No devices; exit 9` failed (No devices); is the driver loaded?",
        ),
        (
            Checks(gpus=2, gpu_command=GPU, apps_command=("echo", "4711, python, 12000 MiB")),
            "1 compute processes hold GPUs, needed none; the first: 4711, python, 12000 MiB",
        ),
        (
            Checks(gpus=2, gpu_command=("sleep", "60"), apps_command=("true",)),
            "`sleep 60` failed (sleep did not end within 0.5 s); is the driver loaded?",
        ),
        (
            Checks(paths=("/", "/nonexistent/stamp")),
            "/nonexistent/stamp is missing; run the deploy to install the engine and stage the weights",
        ),
    ],
)
def test_local_checks(wanted: Checks, reason: str) -> None:
    assert asyncio.run(start_checks.blocked(wanted, 0.5)) == reason


def test_a_full_disk_blocks_the_next_start() -> None:
    free = shutil.disk_usage("/").free
    assert start_checks.disk(Checks(disk={"/": 1})) == ""
    reason = start_checks.disk(Checks(disk={"/": free * 4.0}))
    assert reason.startswith("/ has ")
    assert reason.endswith("; make room there")


def test_a_taken_port_blocks_and_says_how_to_find_who() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        reason = start_checks.ports((Port("127.0.0.1", port),))
    assert reason == f"port {port} on 127.0.0.1 is taken; find who has it with `ss -ltnp sport = :{port}`"
    assert start_checks.ports((Port("127.0.0.1", port),)) == ""
    assert start_checks.ports((Port("192.0.2.1", port),)).endswith("is the address on this host?")


def kernel(seen: set[str] | None = None) -> tuple[KernelLog, list[str]]:
    fatal: list[str] = []
    return KernelLog((), FATAL_XIDS, seen or set(), fatal.append), fatal


def test_fatal_xids_are_told_once_and_can_be_forgiven() -> None:
    log, fatal = kernel()
    line = "[5.0] host kernel: NVRM: Xid (PCI:0000:9b:00): 79, pid='<unknown>', GPU has fallen off the bus."
    for text in ("[1.0] usb 1-1: new device", "[2.0] NVRM: Xid (PCI:0000:9b:00): 31, pid=1, MMU fault", line, line):
        log.feed(text)
    assert fatal == [line]
    assert len(log.lines) == 2
    assert log.reason() == f"fatal Xid: {line}; reset the GPU or reboot, then `resume` on this host"
    seen = log.forgive()
    assert log.reason() == ""
    again, fatal = kernel(seen)
    again.feed(line)
    assert (fatal, again.reason()) == ([], "")


def test_a_kernel_log_that_cannot_be_read_is_a_problem_and_no_block() -> None:
    async def work() -> KernelLog:
        log = KernelLog(("sh", "-c", "echo No permission; exit 1"), FATAL_XIDS, set(), lambda line: None)
        for _ in range(100):
            log.poll()
            if log.problem:
                break
            await asyncio.sleep(0.05)
        return log

    log = asyncio.run(work())
    assert log.problem == "sh ended with status 1: No permission"
    assert log.settled()
    assert log.reason() == ""


def test_the_store_keeps_holds_through_a_reboot_and_memory_through_a_restart(tmp_path: Path) -> None:
    run, state = tmp_path / "run", tmp_path / "state"
    run.mkdir()
    state.mkdir()
    store = Store(str(run), str(state))
    assert store.load_memory() == Memory()
    memory = Memory(boot="b", aborts=(1.0, 2.5), streak=2, held="failed", failures=(Failure("a", "r"),))
    store.save_memory(memory)
    assert store.load_memory() == memory
    (run / "memory.json").unlink()
    assert store.load_memory() == memory
    store.save_memory(Memory(boot="b"))
    assert not (state / "held.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"boot": 1}', "null", '{"held": "maybe"}'])
def test_an_unreadable_memory_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory.json").write_text(text)
    assert Store(str(tmp_path), str(tmp_path)).load_memory() == Memory()


def test_how_the_last_guard_ended_is_told_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path), str(tmp_path))
    store.save_ended("watchdog killed KILL")
    assert [store.take_ended(), store.take_ended()] == ["watchdog killed KILL", ""]


def test_bundles_are_bounded_in_number_and_size(tmp_path: Path) -> None:
    store = Store(str(tmp_path), str(tmp_path))
    for number in range(BUNDLES + 5):
        store.save_bundle(f"{number:03}", {"number": number, "processes": [{"lines": "x" * 2 * BUNDLE_LIMIT}]})
    kept = store.bundles(100)
    assert [each["number"] for each in kept] == list(range(BUNDLES + 4, 4, -1))
    sizes = [path.stat().st_size for path in (tmp_path / "failures").iterdir()]
    assert max(sizes) <= BUNDLE_LIMIT
    assert store.bundles(1) == kept[:1]


def test_bundle_names_sort_by_age() -> None:
    assert failure_bundle.name("abc")[:2] == "20"
    assert failure_bundle.name("")[-5:] == "-none"


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        notifier.ready()
        notifier.status("one\ntwo")
        notifier.status("one\ntwo")
        notifier.alive()
        notifier.stopping()
        said = [systemd.recv(1000) for _ in range(4)]
    assert said == [b"READY=1", b"STATUS=one two", b"WATCHDOG=1", b"STOPPING=1"]


def test_nobody_is_told_outside_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().ready()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("VLLM_API_KEY=sesame\n", "sesame"),
        ('# ours\nVLLM_API_KEY="se=same"\nOTHER=1\n', "se=same"),
        ("sesame\n", "sesame"),
        (None, ""),
    ],
)
def test_the_api_key_is_read_as_plain_units_read_it(
    text: str | None, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guard-key").write_text("k\n")
    if text is not None:
        (tmp_path / "api-key").write_text(text)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert state_store.credentials() == ("k\n", key)
