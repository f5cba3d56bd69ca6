"""`vllm serve` of the stand-in: the process that a unit starts, its children, and what it does when one ends."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import types

from vllm.standin import api, http
from vllm.standin.engine import Engine, follow
from vllm.standin.process import end, ended, fork, knob, log
from vllm.standin.weights import map_weights


def _api_server(args: argparse.Namespace) -> int:
    ranks = api.Ranks(args)
    server = http.Server.__new__(http.Server)

    def stop(number: int, frame: types.FrameType | None) -> None:
        def drain() -> None:
            if hasattr(server, "ranks"):
                server.drain(float(args.shutdown_timeout or 0))
            os._exit(0)

        threading.Thread(target=drain, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    ranks.listen(args.data_parallel_rpc_port or 29550, local_only=ranks.size == _local(args))
    # Nothing listens on the endpoint before the engine is up.
    server.__init__(args, ranks)  # type: ignore[misc]
    log(api.WHO, f"Starting vLLM server on http://{args.host or '0.0.0.0'}:{args.port or 8000}")
    log(api.WHO, "Application startup complete.")
    server.serve_forever()
    return 0


def _local(args: argparse.Namespace) -> int:
    size = args.data_parallel_size or 1
    return size if args.data_parallel_size_local is None else int(args.data_parallel_size_local)


def _crash(message: str) -> None:
    time.sleep(float(knob("start_delay", "1")))
    raise RuntimeError(message)


def serve(args: argparse.Namespace) -> int:
    """Start the children that this command line asks for and stay until one ends or TERM comes."""
    stopping = threading.Event()

    def stop(number: int, frame: types.FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN if knob("ignore_term") else stop)
    log("APIServer", f"non-default args: {sys.argv[1:]}")
    if knob("crash") and knob("crash_if") in " ".join(sys.argv):
        _crash(knob("crash"))
    map_weights(args, "EngineCore")
    children = _children(args)
    while not stopping.is_set():
        for name, pid in children.items():
            status = ended(pid)
            if status is not None:
                log("APIServer", f"{name} died unexpectedly, shutting down.", "ERROR")
                for other in children.values():
                    end(other)
                # A dead engine ends vLLM with status 0 (seen on 0.32.0), a killed API server with 1.
                return int(name.startswith("ApiServer") and status != 0)
        stopping.wait(0.1)
    log("APIServer", "Shutting down")
    for name in sorted(children):
        # The API server first: it drains while the engines still answer.
        end(children[name], float(args.shutdown_timeout or 0) + 1.0)
    return 0


def _children(args: argparse.Namespace) -> dict[str, int]:
    start = args.data_parallel_start_rank or 0
    if args.headless and (args.nnodes or 1) > 1 and (args.node_rank or 0) > 0:
        return {"Worker": fork(f"VLLM::Worker_PP{args.node_rank}", lambda: follow(args), session=True)}
    followers = (args.nnodes or 1) - 1 if not args.headless else 0
    out = {}
    if not args.headless:
        out["ApiServer_0"] = fork("VLLM::ApiServer_0", lambda: _api_server(args))
        if (args.data_parallel_size or 1) > 1 and start == 0:
            out["DPCoordinator"] = fork("VLLM::DPCoordinator", _coordinate)
    for rank in range(start, start + _local(args)):
        core = Engine(args, rank, followers)
        out[f"EngineCore_DP{rank}"] = fork(f"VLLM::EngineCore_DP{rank}", core.run)
    return out


def _coordinate() -> int:
    while True:
        time.sleep(3600)
