"""The stand-in fails as the real vLLM was seen to; here as processes of this machine, on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.free_port import free_port
from tests.standin import PACKAGE

pytestmark = pytest.mark.slow

Start = Callable[..., subprocess.Popen[str]]
MODEL = "kimi-k2"


@pytest.fixture
def ports() -> tuple[int, int]:
    """The endpoint's port and the handshake's."""
    return free_port(), free_port()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `vllm serve`; whatever it leaves behind is ended after the test."""
    started: list[subprocess.Popen[str]] = []
    mark = f"{os.getpid()}-{tmp_path.name}"

    def run(*argv: str, **env: str) -> subprocess.Popen[str]:
        known = {**os.environ, "PYTHONPATH": str(PACKAGE), "STANDIN_START_DELAY": "0.1", "STANDIN_TEST": mark}
        command = [sys.executable, "-s", "-m", "vllm.entrypoints.cli.main", "serve", "m", *argv]
        log = (tmp_path / f"log{len(started)}").open("w")
        with log:
            process = subprocess.Popen(command, env={**known, **env}, stdout=log, stderr=log, text=True)
        started.append(process)
        return process

    yield run
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)
    for process in started:
        process.wait(timeout=10)


def marked(mark: str) -> list[int]:
    """Return the processes of one test: they inherit its mark, whatever they call themselves."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"STANDIN_TEST={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                pids.append(int(entry.name))
        except OSError:
            continue
    return pids


def called(title: str, mark_of: int) -> list[int]:
    """Return the processes of that title among a main process's descendants and orphans."""
    words = Path(f"/proc/{mark_of}/environ").read_bytes().split(b"\0")
    # Just after its start a process still shows the environment of the test itself.
    mark = next((word.partition(b"=")[2].decode() for word in words if word.startswith(b"STANDIN_TEST=")), None)
    pids = marked(mark) if mark else []
    return [pid for pid in pids if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title.encode())]


def group(ports: tuple[int, int], *more: str) -> list[str]:
    api, rpc = ports
    flags = f"--port {api} --served-model-name {MODEL} --data-parallel-size 2 --data-parallel-size-local 1"
    return [*flags.split(), "--data-parallel-address", "127.0.0.1", "--data-parallel-rpc-port", str(rpc), *more]


HEADLESS = ["--headless", "--data-parallel-start-rank", "1"]


def get(port: int, path: str, timeout: float = 3.0) -> tuple[int, str]:
    """Return status and body; 0 when nothing listens, -1 when nothing comes."""
    return send(urllib.request.Request(f"http://127.0.0.1:{port}{path}"), timeout)


def send(request: urllib.request.Request, timeout: float) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except TimeoutError:
        return -1, ""
    except OSError:
        return 0, ""


def ask(
    port: int, rank: int | None = None, timeout: float = 3.0, path: str = "completions", **body: Any
) -> tuple[int, str]:
    content = {"model": MODEL, "prompt": "x", "max_tokens": 2, **body}
    headers = {} if rank is None else {"X-data-parallel-rank": str(rank)}
    url = f"http://127.0.0.1:{port}/v1/{path}"
    return send(urllib.request.Request(url, json.dumps(content).encode(), headers), timeout)


def counters(port: int, rank: int) -> list[str]:
    """Return one engine's lines of the metrics."""
    return [line for line in get(port, "/metrics")[1].splitlines() if f'engine="{rank}"' in line]


def until(probe: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def serving(port: int) -> Callable[[], bool]:
    return lambda: get(port, "/health")[0] == 200


def test_both_ranks_answer_and_count(start: Start, ports: tuple[int, int]) -> None:
    start(*group(ports))
    start(*HEADLESS, *group(ports))
    until(serving(ports[0]))
    assert [ask(ports[0], rank)[0] for rank in (0, 1, 1)] == [200, 200, 200]
    metrics = get(ports[0], "/metrics")[1]
    assert f'vllm:iteration_tokens_total_count{{engine="0",model_name="{MODEL}"}} 2.0' in metrics
    assert f'vllm:generation_tokens_total{{engine="1",model_name="{MODEL}"}} 4.0' in metrics
    assert f'vllm:time_to_first_token_seconds_count{{engine="1",model_name="{MODEL}"}} 2.0' in metrics
    assert f'vllm:inter_token_latency_seconds_bucket{{engine="1",model_name="{MODEL}",le="+Inf"}} 2.0' in metrics
    assert json.loads(get(ports[0], "/v1/models")[1])["data"][0]["id"] == MODEL


def test_the_head_answers_nothing_before_its_headless_rank_is_there(start: Start, ports: tuple[int, int]) -> None:
    head = start(*group(ports))
    until(lambda: len(called("VLLM::EngineCore_DP0", head.pid)) == 1)
    time.sleep(1)
    assert get(ports[0], "/health")[0] == 0
    start(*HEADLESS, *group(ports))
    until(serving(ports[0]))


def test_a_dead_headless_rank_hangs_its_requests_while_health_says_200(start: Start, ports: tuple[int, int]) -> None:
    start(*group(ports))
    headless = start(*HEADLESS, *group(ports))
    until(serving(ports[0]))
    for pid in [*called("VLLM::", headless.pid), headless.pid]:
        if pid == headless.pid or b"DP1" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert get(ports[0], "/health")[0] == 200
    assert ask(ports[0], 0)[0] == 200
    assert ask(ports[0], 1, timeout=1.5)[0] == -1
    assert ask(ports[0], 0)[0] == 200
    # Nor does it help that somebody starts the rank again.
    again = start(*HEADLESS, *group(ports))
    until(lambda: len(called("VLLM::Worker_DP1", again.pid)) == 1)
    time.sleep(1.5)
    assert ask(ports[0], 1, timeout=1.5)[0] == -1
    assert get(ports[0], "/health")[0] == 200


def test_a_headless_rank_outlives_its_head_and_keeps_the_next_from_starting(
    start: Start, ports: tuple[int, int]
) -> None:
    head = start(*group(ports))
    headless = start(*HEADLESS, *group(ports))
    until(serving(ports[0]))
    first = [pid for pid in called("VLLM::", head.pid) if b"DP1" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    for pid in [*first, head.pid]:
        os.kill(pid, signal.SIGKILL)
    head.wait(timeout=10)
    start(*group(ports))
    time.sleep(3)
    assert headless.poll() is None
    assert get(ports[0], "/health")[0] == 0
    # Not even a new headless rank helps, as long as the old one lives.
    start(*HEADLESS, *group(ports))
    time.sleep(1.5)
    assert get(ports[0], "/health")[0] == 0


def test_with_expert_parallel_the_first_request_fails_and_the_head_ends_with_0(
    start: Start, ports: tuple[int, int]
) -> None:
    head = start(*group(ports, "--enable-expert-parallel"))
    headless = start(*HEADLESS, *group(ports, "--enable-expert-parallel"))
    until(serving(ports[0]))
    for pid in called("VLLM::EngineCore_DP1", headless.pid):
        os.kill(pid, signal.SIGKILL)
    headless.wait(timeout=10)
    assert get(ports[0], "/health")[0] == 200
    assert ask(ports[0], 0)[0] == 500
    assert head.wait(timeout=10) == 0


def test_a_stopped_engine_hangs_its_requests(start: Start, ports: tuple[int, int]) -> None:
    head = start(*group(ports))
    start(*HEADLESS, *group(ports))
    until(serving(ports[0]))
    (engine,) = called("VLLM::EngineCore_DP0", head.pid)
    os.kill(engine, signal.SIGSTOP)
    assert get(ports[0], "/health")[0] == 200
    before = counters(ports[0], 0)
    assert ask(ports[0], 0, timeout=1.5)[0] == -1
    # A request that reached no engine is in no counter of one: the guard takes any that moves for life.
    assert counters(ports[0], 0) == before
    assert ask(ports[0], 1)[0] == 200
    os.kill(engine, signal.SIGCONT)
    until(lambda: ask(ports[0], 0)[0] == 200)


def test_a_dead_follower_hangs_everything_while_health_says_200(start: Start, ports: tuple[int, int]) -> None:
    nodes = f"--nnodes 2 --master-addr 127.0.0.1 --master-port {free_port()}".split()
    alone = ["--port", str(ports[0]), "--data-parallel-rpc-port", str(ports[1]), "--served-model-name", MODEL]
    start(*alone, *nodes, "--node-rank", "0")
    follower = start(*alone, *nodes, "--node-rank", "1", "--headless")
    until(serving(ports[0]))
    assert ask(ports[0])[0] == 200
    for pid in [*called("VLLM::Worker_PP1", follower.pid), follower.pid]:
        os.kill(pid, signal.SIGKILL)
    follower.wait(timeout=10)
    assert get(ports[0], "/health")[0] == 200
    assert ask(ports[0], timeout=1.5)[0] == -1


def test_a_dead_worker_ends_the_head_and_term_ends_all(start: Start, ports: tuple[int, int]) -> None:
    alone = ["--port", str(ports[0]), "--data-parallel-rpc-port", str(ports[1])]
    head = start(*alone)
    until(serving(ports[0]))
    (worker,) = called("VLLM::Worker_DP0", head.pid)
    os.kill(worker, signal.SIGKILL)
    assert ask(ports[0], model="m", timeout=5)[0] in (0, -1)
    assert head.wait(timeout=10) == 0
    head = start(*alone)
    until(serving(ports[0]))
    children = called("VLLM::", head.pid)
    assert len(children) == 3
    head.terminate()
    assert head.wait(timeout=10) == 0
    assert [pid for pid in children if Path(f"/proc/{pid}/exe").exists()] == []


def test_term_drains_for_as_long_as_it_is_told_to(start: Start, ports: tuple[int, int]) -> None:
    alone = ["--port", str(ports[0]), "--data-parallel-rpc-port", str(ports[1]), "--shutdown-timeout", "20"]
    head = start(*alone, STANDIN_TOKEN_SECONDS="0.1")
    until(serving(ports[0]))
    body = json.dumps({"model": "m", "prompt": "x", "max_tokens": 15}).encode()
    with socket.create_connection(("127.0.0.1", ports[0])) as line:
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")
        line.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.3)
        head.terminate()
        line.settimeout(15)
        assert line.makefile("rb").read().startswith(b"HTTP/1.1 200")
    assert head.wait(timeout=15) == 0


def test_refusals_are_vllms(start: Start, ports: tuple[int, int]) -> None:
    alone = ["--port", str(ports[0]), "--data-parallel-rpc-port", str(ports[1]), "--served-model-name", MODEL]
    start(*alone, VLLM_API_KEY="secret")
    until(serving(ports[0]))
    assert ask(ports[0])[0] == 401

    def tell(**body: Any) -> tuple[int, str]:
        content = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2, **body}
        headers = {"Authorization": "Bearer secret", "X-data-parallel-rank": body.pop("rank", "0")}
        content.pop("rank", None)
        url = f"http://127.0.0.1:{ports[0]}/v1/chat/completions"
        return send(urllib.request.Request(url, json.dumps(content).encode(), headers), 3)

    assert tell()[0] == 200
    assert tell(tools=[{"type": "function", "function": {"name": "f"}}])[0] == 400
    code, text = tell(rank="5")
    assert (code, json.loads(text)["error"]["message"]) == (400, "data_parallel_rank 5 is out of range [0, 1).")
    code, text = tell(model="nope")
    assert code == 404
    assert "does not exist" in text


@pytest.mark.parametrize(
    ("argv", "env", "status", "last"),
    [
        (["--disable-log-requests"], {}, 2, "vllm: error: unrecognized arguments: --disable-log-requests"),
        ([], {"STANDIN_CRASH": "CUDA error: out of memory"}, 1, "RuntimeError: CUDA error: out of memory"),
    ],
)
def test_a_start_that_fails_says_why(
    start: Start, tmp_path: Path, argv: list[str], env: dict[str, str], status: int, last: str
) -> None:
    assert start(*argv, **env).wait(timeout=20) == status
    assert (tmp_path / "log0").read_text().splitlines()[-1] == last
