"""What the guard answers: HTTP reads at the control port, and the local socket of `muster status` and the deploys.

Commands come from the local socket (root, and outside systemd the guard's own user) or from another guard by the
control protocol; HTTP changes nothing. Over HTTP everybody may read the phase and numbers; with the API key names and
reasons too. A browser gets the same as a page, and sends the key as a password. Log lines leave by the local socket
alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import re
import socket
import struct
import time
from dataclasses import asdict
from typing import Any, Protocol

from . import head_core, status, status_page
from .http import Response, hang_up
from .start_gate import GateServices, StartGate

SOCKET = "control.sock"
REQUEST_LIMIT = 4096
"""Bytes of a request at the local socket."""
REQUEST_TIMEOUT = 5.0
COMMANDS = ("stop", "restart", "resume")
OPERATOR = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,64}")
"""Who gave a command: a word for people, believed as far as root on this host is."""
TEXT, HTML = "text/plain; charset=utf-8", "text/html; charset=utf-8"
LIVE, SIGN_IN = "/live", "/sign-in"
PAGES = ("/", LIVE, SIGN_IN)
"""One page: as it is now, reading itself again, and asking the browser for the API key first."""
PROGRAM = os.path.basename(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Which guard this is: its program's directory on a host is named by its digest."""


class GuardParts(GateServices, Protocol):
    """The parts of a guard that the answers are made of."""

    start_gate: StartGate

    def log(self, text: str) -> None: ...


class Answers:
    """Answers people and programs; the only way in for an operator's command."""

    def __init__(self, guard: GuardParts, api_key: str, users: frozenset[int]) -> None:
        """`users`: the user ids that may use the local socket."""
        self._guard = guard
        self._api_key = api_key
        self._users = users
        self._server: asyncio.AbstractServer | None = None
        self._path = ""

    def get(self, path: str, token: str) -> Response:
        """One HTTP read, on the head. `token`: the key sent with it, or empty."""
        head, now = self._guard.head, time.monotonic()
        if head is None:
            return 404, "this is no head\n", TEXT
        trusted = bool(self._api_key) and hmac.compare_digest(token.encode(), self._api_key.encode())
        if path == "/ready":
            ready = status.is_ready(head.state, head.liveness, now)
            text = head.explain() if trusted else status.phase(head.state, now)
            return (200 if ready else 503), text + "\n", TEXT
        if path == "/status":
            if token and not trusted:
                return 401, "this is not the API key; without a token there are the phase and numbers\n", TEXT
            answer = (
                status.without_lines(self.group(now)) if trusted else status.numbers(head.state, head.liveness, now)
            )
            return 200, json.dumps(answer) + "\n", "application/json"
        if path in PAGES:
            return self._page(path, token, trusted, now)
        if path == "/metrics":
            text = status.prometheus(self._guard.config, head.state, head.liveness, now)
            return 200, text, "text/plain; version=0.0.4; charset=utf-8"
        return 404, "there are /, /ready, /status and /metrics\n", TEXT

    def _page(self, path: str, token: str, trusted: bool, now: float) -> Response:
        """The page for browsers, which shows what `/status` gives the same reader."""
        head = self._guard.head
        assert head is not None
        if path == SIGN_IN and not self._api_key:
            return 404, "this group has no API key; muster status shows its hosts and reasons\n", TEXT
        if not trusted and (token or path == SIGN_IN):
            return 401, "hosts and reasons need the API key, sent as the password; / shows the rest\n", TEXT
        document = status.without_lines(self.group(now)) if trusted else None
        if document is None:
            document = status.numbers(head.state, head.liveness, now)
        text = status_page.page(document, time.time(), live=path == LIVE, key=bool(self._api_key))
        return 200, text, HTML

    def group(self, now: float) -> dict[str, Any] | None:
        """The group as the head sees it; None on a member."""
        config, head = self._guard.config, self._guard.head
        if head is None:
            return None
        return {
            "group": config.group.name,
            "recipe": config.recipe,
            "digest": config.group.digest,
            "release": config.group.engine,
            "guard": PROGRAM,
            **status.group_status(config, head.state, head.liveness, now, head.refusals),
            "metrics_problem": head.metrics_problem,
            "last_refusal": head.last_refusal,
            "last_start": self._guard.store.load_start(),
        }

    def command(self, name: str, by: str = "") -> dict[str, str]:
        """Carry out an operator's command, on the head: `answer`: what the group does now; `error`: why it was not.

        `by`: who gave it, as far as it was said; kept with a stop.
        """
        guard, head = self._guard, self._guard.head
        if name not in COMMANDS:
            return {"answer": f"no command {name[:40]!r}; there are {', '.join(COMMANDS)}"}
        if head is None or guard.ending:
            return {"answer": "the guard is about to exit; ask again in a few seconds"}
        command = head_core.Command(name, by, time.time())
        problem = head.keep_hold(command)
        if problem:
            return self._not_kept(name, problem)
        guard.log(f"operator{' ' + by if by else ''}: {name}")
        head.post(command)
        return {"answer": head.explain()}

    def _not_kept(self, name: str, problem: str) -> dict[str, str]:
        """The answer to a command whose effect on the hold could not be written down: a reboot would undo it."""
        self._guard.log(f"operator: {name}, not done: {problem}")
        return {"error": f"{name} was not done: it could not be written down ({problem}); mend that, then ask again"}

    async def serve(self, folder: str) -> None:
        """Open the local socket. Without its folder there is none, and the group runs all the same."""
        self._path = os.path.join(folder, SOCKET)
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        try:
            self._server = await asyncio.start_unix_server(self._local, self._path, limit=REQUEST_LIMIT)
            os.chmod(self._path, 0o600)
        except OSError as error:
            self._guard.log(f"no control socket at {self._path}: {error}")

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    async def _local(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            _, user, _ = struct.unpack("3i", credentials)
            if user not in self._users:
                return
            line = await asyncio.wait_for(reader.readuntil(b"\n"), REQUEST_TIMEOUT)
            # The word on the wire is "verb": a deploy asks guards of earlier versions too.
            request = json.loads(line)
            name, by = str(request["verb"]), request.get("by")
            answer = await self._answer(name, by if isinstance(by, str) and OPERATOR.fullmatch(by) else "")
            writer.write(json.dumps(answer).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), REQUEST_TIMEOUT)
        except (
            OSError,
            EOFError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
            asyncio.LimitOverrunError,
            asyncio.TimeoutError,
        ):
            pass
        finally:
            await hang_up(writer)

    async def _answer(self, name: str, by: str) -> dict[str, Any]:
        guard = self._guard
        if name == "status":
            return self._status()
        if name == "resume":
            # On a member too: its own fatal Xids are acknowledged here, the rest is the head's.
            guard.store.save_resumed(guard.xid_log.acknowledge())
        if guard.link is None:
            return self.command(name, by)
        if name in ("resume", "restart") and (problem := guard.start_gate.hold(False)):
            return self._not_kept(name, problem)
        try:
            return await guard.link.command(name)
        except (OSError, asyncio.TimeoutError) as error:
            head = f"the head {guard.config.group.head} cannot be asked: {error or 'no answer'}"
        if name != "stop":
            return {"error": head}
        problem = guard.start_gate.hold(True)
        return self._not_kept(name, problem) if problem else {"answer": f"{head}; it is told when it is back"}

    def _status(self) -> dict[str, Any]:
        guard, now = self._guard, time.monotonic()
        return {
            "host": guard.config.host,
            "role": "head" if guard.head is not None else "member",
            "node_rank": guard.config.this.node_rank,
            "group_name": guard.config.group.name,
            "recipe": guard.config.recipe,
            "digest": guard.config.group.digest,
            "member": {**status.member_status(guard.member, now), "held": guard.start_gate.held},
            "children": [
                {
                    "name": running.child.name,
                    "pid": running.process.pid,
                    "running": running.process.returncode is None,
                    "load": asdict(running.death_watch.loads),
                    "last_line": running.lines(400).strip().rpartition("\n")[2],
                }
                for running in guard.children.running
            ],
            "detail": guard.children.detail,
            "link_problem": guard.link.problem if guard.link else "",
            "kernel_problem": guard.xid_log.problem,
            "xids": guard.xid_log.lines,
            "ending": guard.ending,
            "group": self.group(now),
        }
