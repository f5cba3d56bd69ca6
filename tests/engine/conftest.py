"""One sandbox with the real engine, deployed once by the README's own command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.request import Request

import pytest

from muster.sandbox import Sandbox
from tests import guard_answers
from tests.conftest import Boot

REPOSITORY = Path(__file__).parent.parent.parent
UNIT = "muster-kimi-k2-instruct.service"
RANKS = (0, 1)
KEY = "sk-0123456789abcdef"
"""The engine's API key. Every test has it: a start with another setting takes a minute of both cores."""


@dataclass(frozen=True)
class Real:
    """Two hosts that serve with the real vLLM."""

    box: Sandbox
    state: Path
    key: Path | None = None
    """File of the API key on this machine; None where the API asks for none."""

    def run(self, *words: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment from the top of the clone, as the README has it.

        Raises:
            AssertionError: it has not ended in time; with what it has said.
        """
        try:
            return subprocess.run(
                [str(Path(sys.executable).parent / words[0]), *words[1:]],
                cwd=REPOSITORY,
                env={**os.environ, "MUSTER_SANDBOX": self.box.name, "XDG_STATE_HOME": str(self.state)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            said = b"".join(part for part in (late.stdout, late.stderr) if isinstance(part, bytes)).decode()
            raise AssertionError(f"{words[0]} has not ended within {timeout:g} s:\n{said}") from None

    def deploy(self, *flags: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run the literal command of the README."""
        command = ("inventories/sandbox.py", "deploys/kimi_k2_instruct.py")
        return self.run("pyinfra", "-y", *self.settings, *flags, *command, timeout=timeout)

    @property
    def settings(self) -> tuple[str, ...]:
        """What a command is told of the group besides its inventory and recipe."""
        return ("--data", f"api_key_file={self.key}") if self.key else ()

    def request(
        self, path: str, body: object = None, headers: Mapping[str, str] = MappingProxyType({}), host: str = ""
    ) -> Request:
        """Return a request to the API of the head, or of another host, that carries the key."""
        given = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {KEY}"} if self.key else {}),
            **headers,
        }
        data = None if body is None else json.dumps(body).encode()
        address = {each.name: each.address for each in self.box.hosts}[host] if host else self.head
        return Request(f"http://{address}:8000{path}", data, given)

    @property
    def head(self) -> str:
        return str(self.box.hosts[0].address)

    def complete(self, rank: int, timeout: float = 120, tokens: int = 4, **more: object) -> str:
        """Return why one chat completion through one DP rank ended, or "" where it gave none."""
        body = {"model": "kimi-k2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens, **more}
        request = self.request("/v1/chat/completions", body, {"X-data-parallel-rank": str(rank)})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                choice: dict[str, Any] = json.load(response)["choices"][0]
                return str(choice["finish_reason"])
        except (OSError, ValueError):
            return ""

    def status(self) -> dict[str, Any]:
        """Return what the head's guard says, or nothing while it is between two lives."""
        return guard_answers.group_status(self.box, self.box.hosts[0].name, "kimi-k2-instruct")

    def ready(self) -> bool:
        """Whether `/ready` says 200."""
        return guard_answers.ready(self.box)

    def pids(self, host: str) -> dict[int, str]:
        """Return the living processes of the unit on a host, its guard's own left out: pid -> title."""
        script = (
            f"main=$(systemctl show -P MainPID {UNIT});"
            f" for p in $(cat /sys/fs/cgroup/systemd/system.slice/{UNIT}/cgroup.procs"
            f" /sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs 2>/dev/null); do [ $p = $main ] ||"
            " echo $p $(tr '\\0' ' ' </proc/$p/cmdline); done"
        )
        lines = self.box.exec(host, ["/bin/sh", "-c", script]).stdout.splitlines()
        return {int(line.split()[0]): line.partition(" ")[2] for line in lines if line.strip()}

    def command_line(self, host: str) -> str:
        """Return the words of a host's oldest `vllm serve`."""
        script = "tr '\\0' ' ' </proc/$(pgrep -of 'vllm serve')/cmdline"
        return self.box.exec(host, ["/bin/sh", "-c", script]).stdout

    def wait(self, what: str, holds: Callable[[], object], seconds: float) -> None:
        """Wait until something holds.

        Raises:
            AssertionError: it did not within `seconds`; a bound on a hung test, not a bound under test.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if holds():
                return
            time.sleep(1)
        raise AssertionError(f"{what}: not within {seconds:g} s; the guard says {self.status()}")


@pytest.fixture(scope="session")
def real(sandbox: Boot, tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Return the deployed sandbox; the tests of this package share it, in the order they stand in."""
    key = tmp_path_factory.mktemp("key") / "api.env"
    key.write_text(f"VLLM_API_KEY={KEY}\n")
    there = Real(sandbox("engine", 2), tmp_path_factory.mktemp("state"), key)
    first = there.deploy()
    assert first.returncode == 0, first.stdout + first.stderr
    return there
