"""The engine's processes: their order, environment, output and ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from muster.guard import children, short_commands
from muster.guard.children import Children, Journal
from muster.guard.group_settings import Child, Loading, Probe
from muster.guard.messages import Failure


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

    def __init__(self, mark: str, *plan: tuple[Child, list[str]], loading: Loading | None = None) -> None:
        self.reader, self.writer = os.pipe()
        self.failures: list[Failure] = []
        self.deaths: list[Failure] = []
        self.mark = mark
        self.children = Children(
            plan,
            {"VLLM_API_KEY": "secret"},
            Journal(self.writer),
            self.failures.append,
            self.deaths.append,
            loading=loading,
        )

    async def until_failure(self, seconds: float = 20.0, loader: str = "") -> None:
        await self.children.start("g1", "g", self.mark, loader)
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
    for name in children.GUARD_ONLY:
        monkeypatch.setenv(name, "the guard's own")
    names = ["A", "MUSTER_GENERATION", "MUSTER_GROUP", "MUSTER_INSTANCE", "VLLM_API_KEY", *children.GUARD_ONLY]
    show = python(f"import os; print([os.environ.get(name) for name in {names}])")
    run = Run(mark, (Child("vllm", {"A": "1"}), show))
    asyncio.run(run.until_failure())
    assert run.printed().strip() == str(["1", "g1", "g", mark, "secret", *[None] * len(children.GUARD_ONLY)])
    assert [(each.process, each.reason) for each in run.failures] == [("vllm", "vllm ended with status 0")]


LOADING = Loading("/w/rev.loaders.json", 1, 1, 1, ("instanttensor",), "vllm", "r")


def test_the_process_that_loads_gets_the_loaders_words_and_no_other(mark: str) -> None:
    show = python("import sys; print(sys.argv[1:])")
    for loader, said in (("instanttensor", "['--load-format', 'instanttensor']"), ("", "[]")):
        run = Run(mark, (Child("vllm"), show), loading=LOADING)
        asyncio.run(run.until_failure(loader=loader))
        assert run.printed().strip() == said
        assert run.children.running[0].argv[3:] == (["--load-format", loader] if loader else [])
    other = Run(mark, (Child("ray"), show), loading=LOADING)
    asyncio.run(other.until_failure(loader="instanttensor"))
    assert other.printed().strip() == "[]"


@pytest.mark.parametrize("loading", [LOADING, None])
def test_a_loader_that_the_plan_does_not_name_starts_nothing(mark: str, loading: Loading | None) -> None:
    run = Run(mark, (Child("vllm"), python("")), loading=loading)
    asyncio.run(run.until_failure(loader="dummy"))
    assert [failure.reason for failure in run.failures] == [
        "the head chose the loader 'dummy', which this host's plan does not name; run the deploy on every host"
    ]
    assert run.children.running == []


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
        assert asyncio.run(short_commands.probe_holds(probe, {})) is False
        listener.listen()
        assert asyncio.run(short_commands.probe_holds(probe, {})) is True


def test_a_command_that_hangs_is_cut_off() -> None:
    began = time.monotonic()
    assert asyncio.run(short_commands.run_command(["sleep", "600"], 0.3)) == (124, "sleep did not end within 0.3 s")
    assert time.monotonic() - began < 60
    assert asyncio.run(short_commands.run_command(["no-such-command"], 1))[0] == 127


def test_exit_statuses_in_words() -> None:
    assert [short_commands.describe_exit(status) for status in (0, 3, -9, -99)] == [
        "ended with status 0",
        "ended with status 3",
        "was killed by SIGKILL",
        "was killed by 99",
    ]
