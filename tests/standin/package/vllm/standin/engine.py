"""One EngineCore of the stand-in with its worker: takes requests over TCP, makes a token a step for each."""

from __future__ import annotations

import argparse
import os
import queue
import signal
import socket
import threading
import time
from typing import Any

from vllm.standin.process import end, fork, knob, log
from vllm.standin.wire import Line

# vLLM gives up waiting for the head's handshake after 5 minutes.
HELLO_SECONDS = 300.0
LOADER = "default_loader.py:501"
EXCEPTION = """\
WorkerProc hit an exception.
Traceback (most recent call last):
  File "/opt/standin/vllm/v1/executor/multiproc_executor.py", line 1177, in _execute_worker_rpc
    output = func(*args, **kwargs)
  File "/opt/standin/vllm/v1/worker/gpu_worker.py", line 1360, in execute_model
    output = self.model_runner.execute_model(
torch.AcceleratorError: CUDA error: an illegal memory access was encountered"""


def worker(orders: int, answers: int, rank: int) -> int:
    """Answer each step order of an EngineCore; ends when the EngineCore is gone.

    At SIGUSR1 it hits an exception and lives on without another answer, as seen on GPUs after an illegal access.
    """
    log(f"Worker_DP{rank}", "Starting to load model")

    def fail(number: int, frame: object) -> None:
        log(f"Worker_DP{rank}", EXCEPTION, "ERROR", "multiproc_executor.py:1189")
        while True:
            time.sleep(3600)

    signal.signal(signal.SIGUSR1, fail)
    os.write(answers, b"r")
    while os.read(orders, 1):
        os.write(answers, b"s")
    return 0


class Engine:
    """A data parallel rank.

    Args:
        args: the `vllm serve` command line.
        rank: data parallel rank.
        followers: ranks on other nodes that each step waits for (`--nnodes`).
    """

    def __init__(self, args: argparse.Namespace, rank: int, followers: int = 0) -> None:
        self.args, self.rank = args, rank
        self.who = f"EngineCore_DP{rank}"
        self.inbox: queue.Queue[dict[str, Any]] = queue.Queue()
        self.head: Line | None = None
        self.token_seconds = float(knob("token_seconds", "0.002"))
        self._followers = followers
        self._follower_lines: list[Line] = []
        self._follower_answers: queue.Queue[int] = queue.Queue()

    def run(self) -> int:
        """Start the worker, register at the head, serve requests for good."""
        down, up = os.pipe(), os.pipe()
        self._orders, self._answers = down[1], up[0]
        if self.args.load_format != "ipc_cache":  # which maps them, and says nothing of the kind
            log(f"Worker_DP{self.rank}", f"Loading weights took {3 + self.rank / 4:.2f} seconds", place=LOADER)
        child = fork(f"VLLM::Worker_DP{self.rank}", lambda: self._worker(down, up), session=True)
        os.close(down[0])
        os.close(up[1])
        os.read(self._answers, 1)
        if self._followers:
            self._gather_followers()
        time.sleep(float(knob("start_delay", "1")))
        threading.Thread(target=self._stay_connected, daemon=True).start()
        try:
            self._loop()
        finally:
            end(child)
        return 1

    def _worker(self, down: tuple[int, int], up: tuple[int, int]) -> int:
        os.close(down[1])
        os.close(up[0])
        return worker(down[0], up[1], self.rank)

    def _gather_followers(self) -> None:
        port = self.args.master_port or 29501
        listener = socket.create_server(("0.0.0.0", port), reuse_port=False)
        log(self.who, f"Waiting for {self._followers} nodes on port {port}")
        while len(self._follower_lines) < self._followers:
            line = Line(listener.accept()[0])
            self._follower_lines.append(line)
            threading.Thread(target=self._hear_follower, args=(line,), daemon=True).start()

    def _hear_follower(self, line: Line) -> None:
        # A follower that is gone is not noticed: its answer simply never comes.
        for _ in line.messages():
            self._follower_answers.put(1)

    def _stay_connected(self) -> None:
        """Say hello once; after that only reconnect, as ZeroMQ does under a rank that outlived its head."""
        head = None if self.args.data_parallel_hybrid_lb else self.args.data_parallel_address
        address = (head or "127.0.0.1", self.args.data_parallel_rpc_port or 29550)
        first, deadline = True, time.monotonic() + HELLO_SECONDS
        while True:
            try:
                sock = socket.create_connection(address, timeout=2)
                sock.settimeout(None)
            except OSError:
                if first and time.monotonic() > deadline:
                    log(self.who, f"Did not receive response from front-end process within {HELLO_SECONDS} s", "ERROR")
                    os._exit(1)
                time.sleep(0.3)
                continue
            line = Line(sock)
            line.send({"kind": "hello" if first else "again", "rank": self.rank})
            first = False
            self.head = line
            for message in line.messages():
                self.inbox.put(message)
            self.head = None
            time.sleep(0.3)

    def _loop(self) -> None:
        running: dict[str, dict[str, Any]] = {}
        while True:
            while not self.inbox.empty() or not running:
                message = self.inbox.get()
                if message["kind"] == "ping":
                    self._tell({"kind": "pong", "id": message["id"]})
                elif message["kind"] == "abort":
                    running.pop(message["id"], None)
                else:
                    running[message["id"]] = {"left": message["tokens"], "made": 0}
            self._step()
            made, finished = [], []
            for name, request in list(running.items()):
                request["left"] -= 1
                made.append(name)
                if request["left"] <= 0:
                    finished.append(name)
                    del running[name]
            self._tell({"kind": "step", "made": made, "finished": finished, "running": len(running)})

    def _step(self) -> None:
        os.write(self._orders, b"s")
        if not os.read(self._answers, 1):
            raise RuntimeError("Executor failed: worker died")
        for line in self._follower_lines:
            line.send({"kind": "step"})
        for _ in self._follower_lines:
            self._follower_answers.get()
        time.sleep(self.token_seconds)

    def _tell(self, message: dict[str, Any]) -> None:
        head = self.head
        if head is not None:
            head.send({**message, "rank": self.rank})


def follow(args: argparse.Namespace) -> int:
    """Be a node's workers under another node's EngineCore (`--nnodes N --node-rank r --headless`)."""
    who = f"Worker_node{args.node_rank}"
    address = (args.master_addr or "127.0.0.1", args.master_port or 29501)
    while True:
        try:
            sock = socket.create_connection(address, timeout=2)
            break
        except OSError:
            time.sleep(0.3)
    sock.settimeout(None)
    log(who, "joined the group")
    line = Line(sock)
    for _ in line.messages():
        line.send({"kind": "done"})
    # Its head is gone; it stays, as seen on the real one.
    while True:
        time.sleep(3600)
