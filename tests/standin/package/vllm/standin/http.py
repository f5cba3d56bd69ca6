"""HTTP of the stand-in: the endpoints and refusals that muster meets."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vllm import __version__
from vllm.standin.api import Ranks, end_when_dead

MAX_TOKENS = 4096


class Refused(Exception):
    """A request that vLLM answers with an error."""

    def __init__(self, code: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.code, self.kind = code, kind


def _imported(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


class Server(ThreadingHTTPServer):
    """The endpoint of one group."""

    daemon_threads = True
    request_queue_size = 1024
    allow_reuse_address = True

    def __init__(self, args: argparse.Namespace, ranks: Ranks) -> None:
        self.args, self.ranks = args, ranks
        self.names = args.served_model_name or [args.model_tag or args.model]
        self.keys = [key for key in (*(args.api_key or []), os.environ.get("VLLM_API_KEY")) if key]
        # The real vLLM wraps its application in this class; here it only says who may pass.
        self.middleware = [_imported(args.middleware)(None)] if args.middleware else []
        self.busy = 0
        self.draining = False
        super().__init__((args.host or "0.0.0.0", args.port or 8000), Handler)
        end_when_dead(ranks)

    def drain(self, seconds: float) -> None:
        """Wait until no request is in flight, at most `seconds`."""
        self.draining = True
        deadline = time.monotonic() + seconds
        while self.busy and time.monotonic() < deadline:
            time.sleep(0.05)


class Handler(BaseHTTPRequestHandler):
    """One client connection."""

    protocol_version = "HTTP/1.1"
    server: Server
    lock = threading.Lock()

    def log_message(self, *words: Any) -> None:
        """Say nothing: vLLM's access log is no part of what is tested."""

    def _send(self, code: int, body: Any, kind: str = "application/json") -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if not self._passes() or (path.startswith("/v1") and not self._allowed()):
            return
        if path in ("/health", "/ping"):
            self._send(503 if self.server.ranks.dead else 200, "")
        elif path == "/metrics":
            self._send(200, self.server.ranks.metrics(self.server.names[0]), "text/plain; version=0.0.4")
        elif path == "/version":
            self._send(200, {"version": __version__})
        elif path == "/v1/models":
            about = {"object": "model", "owned_by": "vllm", "max_model_len": self.server.args.max_model_len or 512}
            self._send(200, {"object": "list", "data": [{"id": name, **about} for name in self.server.names]})
        else:
            self._send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        if not self._passes() or (path.startswith("/v1") and not self._allowed()):
            return
        try:
            pools = self.server.args.runner == "pooling"
            if path not in (("/v1/embeddings",) if pools else ("/v1/completions", "/v1/chat/completions")):
                raise Refused(404, "NotFoundError", "Not Found")
            if self.server.draining:
                raise Refused(503, "ServiceUnavailable", "The server is shutting down")
            if pools:
                self._embed(json.loads(body))
            else:
                self._complete(json.loads(body), chat=path.endswith("chat/completions"))
        except Refused as refused:
            error = {"message": str(refused), "type": refused.kind, "param": None, "code": refused.code}
            self._send(refused.code, {"error": error})
        except (ValueError, TypeError):
            self._send(400, {"error": {"message": "bad request", "type": "BadRequestError", "code": 400}})

    def _passes(self) -> bool:
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        scope = {"type": "http", "method": self.command, "path": self.path.split("?")[0], "headers": headers}
        if all(middleware._allowed(scope) for middleware in self.server.middleware):
            return True
        self._send(401, {"error": "Unauthorized"})
        return False

    def _allowed(self) -> bool:
        keys = self.server.keys
        if not keys or self.headers.get("Authorization", "") in {f"Bearer {key}" for key in keys}:
            return True
        self._send(401, {"error": "Unauthorized"})
        return False

    def _embed(self, wanted: dict[str, Any]) -> None:
        """Answer as a pooling model does: the engine chooses the rank, whatever a header says."""
        self._named(wanted)
        events = self.server.ranks.ask(self.server.ranks.choose(None), 1, len(str(wanted["input"]).split()))
        while events.get() != "end":
            pass
        row = {"index": 0, "object": "embedding", "embedding": [0.5, -0.5]}
        self._send(200, {"object": "list", "model": wanted.get("model"), "data": [row]})

    def _named(self, wanted: dict[str, Any]) -> str:
        model: str = wanted.get("model", self.server.names[0])
        if model not in self.server.names:
            known = ", ".join(self.server.names)
            raise Refused(404, "NotFoundError", f"The model `{model}` does not exist. Valid aliases: {known}.")
        return model

    def _complete(self, wanted: dict[str, Any], *, chat: bool) -> None:
        args, ranks = self.server.args, self.server.ranks
        model = self._named(wanted)
        if (
            chat
            and wanted.get("tools")
            and wanted.get("tool_choice", "auto") == "auto"
            and not args.enable_auto_tool_choice
        ):
            message = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            raise Refused(400, "BadRequestError", message)
        pinned = self.headers.get("X-data-parallel-rank")
        if pinned is not None and not 0 <= int(pinned) < ranks.size:
            message = f"data_parallel_rank {pinned} is out of range [0, {ranks.size})."
            raise Refused(400, "BadRequestError", message)
        rank = ranks.choose(int(pinned) if pinned is not None else None)
        text = json.dumps(wanted["messages"]) if chat else str(wanted["prompt"])
        tokens = min(int(wanted.get("max_tokens") or wanted.get("max_completion_tokens") or 16), MAX_TOKENS)
        with self.lock:
            self.server.busy += 1
        try:
            events = ranks.ask(rank, tokens, len(text.split()))
            if wanted.get("stream"):
                self._stream(events, model, chat)
            else:
                self._answer(events, model, chat, tokens, len(text.split()))
        except RuntimeError as error:
            raise Refused(500, "InternalServerError", str(error)) from None
        finally:
            with self.lock:
                self.server.busy -= 1

    def _answer(self, events: Any, model: str, chat: bool, tokens: int, prompt: int) -> None:
        while events.get() != "end":
            pass
        text = " word" * tokens
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        choice.update({"message": {"role": "assistant", "content": text}} if chat else {"text": text})
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
        kind = "chat.completion" if chat else "text_completion"
        self._send(200, {"id": "cmpl-1", "object": kind, "model": model, "choices": [choice], "usage": usage})

    def _stream(self, events: Any, model: str, chat: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while events.get() != "end":
            part = {"delta": {"content": " word"}} if chat else {"text": " word"}
            self.wfile.write(
                b"data: " + json.dumps({"model": model, "choices": [{"index": 0, **part}]}).encode() + b"\n\n"
            )
        self.wfile.write(b"data: [DONE]\n\n")
