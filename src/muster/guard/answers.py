"""What the guard answers: HTTP reads at the control port, and the local socket of `muster status` and the deploys.

Verbs come from the local socket (root and the unit's own user) or from another guard by the control protocol; over
HTTP nothing can be changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from . import head_core, status
from .http import Answer

if TYPE_CHECKING:
    from .loop import Agent

SOCKET = "control.sock"
REQUEST_LIMIT = 4096
PATIENCE = 5.0
VERBS = ("stop", "restart", "resume")
TEXT = "text/plain; charset=utf-8"


class Control:
    """The guard's face to people and programs."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._server: asyncio.AbstractServer | None = None
        self._path = ""

    def get(self, path: str) -> Answer:
        """One HTTP read, on the head."""
        leader, now = self._agent.leader, time.monotonic()
        if leader is None:
            return 404, "this is no head\n", TEXT
        if path == "/ready":
            good = status.answers(leader.state, leader.liveness, now)
            return (200 if good else 503), leader.why_not() + "\n", TEXT
        if path == "/status":
            return 200, json.dumps(self.group(now)) + "\n", "application/json"
        if path == "/metrics":
            text = status.prometheus(self._agent.config, leader.state, leader.liveness, now)
            return 200, text, "text/plain; version=0.0.4; charset=utf-8"
        return 404, "there are /ready, /status and /metrics\n", TEXT

    def group(self, now: float) -> dict[str, Any] | None:
        """The group as the head sees it; None on a member."""
        agent, leader = self._agent, self._agent.leader
        if leader is None:
            return None
        return {
            "group": agent.config.group.name,
            "recipe": agent.config.recipe,
            "digest": agent.config.group.digest,
            **status.group_status(agent.config, leader.state, leader.liveness, now),
            "metrics_problem": leader.engine.problem if leader.engine else "",
            "last_refusal": leader.server.last_refusal,
        }

    def verb(self, name: str) -> str:
        """A person's wish, on the head: what the group does now, in words, or why not."""
        agent, leader = self._agent, self._agent.leader
        if name not in VERBS:
            return f"no verb {name[:40]!r}; there are {', '.join(VERBS)}"
        if leader is None or agent.ending:
            return "the guard is on its way out; ask again in a few seconds"
        agent.say(f"a person says {name}")
        leader.post(head_core.Verb(name))
        return leader.why_not()

    async def serve(self, folder: str) -> None:
        """Open the local socket; without its folder there is none, and the group runs all the same."""
        self._path = os.path.join(folder, SOCKET)
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        try:
            self._server = await asyncio.start_unix_server(self._local, self._path, limit=REQUEST_LIMIT)
            os.chmod(self._path, 0o600)
        except OSError as error:
            self._agent.say(f"no control socket at {self._path}: {error}")

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    async def _local(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            _, user, _ = struct.unpack("3i", raw)
            if user not in (0, os.geteuid()):
                return
            line = await asyncio.wait_for(reader.readuntil(b"\n"), PATIENCE)
            request = json.loads(line)
            answer = await self._answer(str(request["verb"]))
            writer.write(json.dumps(answer).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), PATIENCE)
        except (OSError, EOFError, ValueError, KeyError, TypeError, asyncio.LimitOverrunError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()

    async def _answer(self, verb: str) -> dict[str, Any]:
        agent = self._agent
        if verb == "status":
            return self._status()
        if verb == "resume":
            # Also on a member: its own fatal Xids are forgiven here, the rest is the head's.
            agent.store.save_xids(agent.kernel.forgive())
        if agent.link is None:
            return {"answer": self.verb(verb)}
        try:
            return {"answer": await agent.link.verb(verb)}
        except (OSError, asyncio.TimeoutError) as error:
            return {"error": f"the head {agent.config.group.head} cannot be asked: {error or 'no answer'}"}

    def _status(self) -> dict[str, Any]:
        agent, now = self._agent, time.monotonic()
        return {
            "host": agent.config.host,
            "role": "head" if agent.leader is not None else "member",
            "node_rank": agent.config.this.node_rank,
            "group_name": agent.config.group.name,
            "recipe": agent.config.recipe,
            "digest": agent.config.group.digest,
            "member": status.member_status(agent.member, now),
            "children": [
                {
                    "name": running.child.name,
                    "pid": running.process.pid,
                    "running": running.process.returncode is None,
                    "last_line": running.lines(400).strip().rpartition("\n")[2],
                }
                for running in agent.children.running
            ],
            "detail": agent.children.detail,
            "link_problem": agent.link.problem if agent.link else "",
            "kernel_problem": agent.kernel.problem,
            "xids": agent.kernel.lines,
            "ending": agent.ending,
            "group": self.group(now),
        }
