"""Daemons that keep weights, and an engine that maps them: `vllm preload` and `--load-format ipc_cache`, without a GPU.

As read in vLLM 0.33.0 and seen on GPUs: loading needs the daemons of all nodes; a daemon that dies while loading ends
its launcher, one that dies while serving leaves it alive with 503 at /health; an engine waits for its daemon for so
many seconds and then fails, and fails at once where the daemon was loaded with another key.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import types
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from vllm import __version__
from vllm.standin.process import end, ended, fork, knob, log

KEY = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "enable_expert_parallel", "dtype",
       "quantization", "kv_cache_dtype", "revision", "moe_backend")  # fmt: skip
WHO = "WeightCache"


def key_of(args: argparse.Namespace, model: str) -> str:
    """Return what a daemon and its engine must agree on."""
    return json.dumps([model, __version__, [getattr(args, name, None) for name in KEY]])


def local_gpus(args: argparse.Namespace) -> range:
    """Return the GPUs of a node, from 0 on: one for each of its ranks."""
    size = (args.tensor_parallel_size or 1) * (args.pipeline_parallel_size or 1) * (args.data_parallel_size or 1)
    if (args.data_parallel_size or 1) > 1:
        local = args.data_parallel_size_local
        local = args.data_parallel_size if local is None else local
        return range(local * (args.tensor_parallel_size or 1))
    return range(size // (args.nnodes or 1))


def _socket(directory: str, gpu: int) -> str:
    return str(Path(directory) / f"vllm_weight_cache_{gpu}.sock")


def _nodes(args: argparse.Namespace) -> tuple[int, int, str]:
    """Return how many nodes there are, which one this is, and the address where they meet."""
    if (args.data_parallel_size or 1) > 1:
        local = args.data_parallel_size_local or args.data_parallel_size
        start = args.data_parallel_start_rank or 0
        return args.data_parallel_size // local, start // local, args.data_parallel_address or "127.0.0.1"
    return args.nnodes or 1, args.node_rank or 0, args.master_addr or "127.0.0.1"


def _meet(args: argparse.Namespace) -> None:
    """Wait until the daemons of every node are there; one that stays away is waited for as long as it takes."""
    nodes, rank, address = _nodes(args)
    port = args.weight_cache_master_port
    if rank == 0:
        with socket.create_server((address, port)) as listener:
            others = [listener.accept()[0] for _ in range(nodes - 1)]
            for other in others:
                other.sendall(b"g")
        return
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2) as line:
            line.settimeout(None)
            if line.recv(1):
                return
        time.sleep(0.2)


def _daemon(args: argparse.Namespace, gpu: int, serving: int, *, first: bool) -> int:
    """Load, meet the others, and answer engines with the key that was loaded."""
    if first:
        _meet(args)
    delay = float(knob("load_delay", "0.5"))
    time.sleep(delay)
    log(WHO, f"Loading weights took {delay:.2f} seconds", place="default_loader.py:501")
    path = Path(_socket(args.weight_cache_socket_dir, gpu))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        log(WHO, f"Weight cache target daemon rank {gpu} serving on {path}")
        os.write(serving, b"r")
        while True:
            conn, _ = server.accept()
            with conn, contextlib.suppress(OSError):
                conn.sendall(key_of(args, args.model).encode())


class _Health(BaseHTTPRequestHandler):
    status = 503

    def do_GET(self) -> None:
        """Answer whether every local daemon serves."""
        self.send_response(type(self).status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def preload(args: argparse.Namespace) -> int:
    """Start a daemon for each GPU of this node, and stay until the last of them is gone."""
    log(WHO, f"non-default args: {sys.argv[1:]}")
    serving, ready = os.pipe()
    gpus = local_gpus(args)
    daemons = {
        fork(f"weight-cache-{gpu}", lambda gpu=gpu: _daemon(args, gpu, ready, first=gpu == 0)) for gpu in gpus  # type: ignore[misc]
    }  # fmt: skip

    def stop(number: int, frame: types.FrameType | None) -> None:
        for pid in daemons:
            end(pid)
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    server = HTTPServer((args.weight_cache_health_host, args.weight_cache_health_port), _Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.set_blocking(serving, False)
    left, loaded = set(daemons), 0
    while left:
        gone = {pid for pid in left if ended(pid) is not None}
        left -= gone
        if gone and loaded < len(gpus):
            log(WHO, "Weight cache daemon rank(s) exited during startup; shutting down.", "ERROR")
            for pid in left:
                end(pid)
            return 1
        with contextlib.suppress(BlockingIOError):
            loaded += len(os.read(serving, 64))
        _Health.status = 200 if loaded == len(gpus) and len(left) == len(daemons) else 503
        time.sleep(0.1)
    return 1


def map_weights(args: argparse.Namespace, who: str) -> None:
    """Map the weights of this node's daemons, where the engine is to; return at once where it loads its own.

    Raises:
        RuntimeError: no daemon in time, or one of another key; `fallback` is not there to load a second copy.
    """
    if args.load_format != "ipc_cache":
        return
    where = json.loads(args.model_loader_extra_config)
    if where.get("fallback", True):
        raise RuntimeError("the stand-in has no second copy to load")
    for gpu in local_gpus(args):
        path, deadline = _socket(where["socket_dir"], gpu), time.monotonic() + where.get("state_timeout_s", 300)
        while True:
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                    line.connect(path)
                    key = line.recv(1 << 16).decode()
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"Weight cache daemon did not become ready in time: {error}") from error
                time.sleep(0.2)
        if key != key_of(args, args.model_tag):
            raise RuntimeError("CacheConfigMismatchError: WeightCacheKey mismatch")
    log(who, f"Mapped the weights of {len(local_gpus(args))} GPUs from the weight cache daemon (zero_copy mode)")
