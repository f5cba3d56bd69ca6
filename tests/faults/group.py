"""One group on two sandbox hosts, deployed as a user does, and how faults and rows reach it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from muster.sandbox import Sandbox, serving_settings
from tests import guard_answers, standin
from tests.faults.sightings import Sighting
from tests.faults.watch import Watch

REPOSITORY = Path(__file__).parent.parent.parent
NAME = "kimi-k2-instruct"
UNIT = f"muster-{NAME}.service"
HOSTS = ("node0", "node1")
HEAD, MEMBER = HOSTS
RANKS = (0, 1)
CONTROL, ENDPOINT = 29600, 8000
CONFIG = f"/etc/muster/{NAME}/guard.json"

STANDIN = {
    "strategy": "dp-ep",
    # Dense ranks: after a rank's death `/health` stays 200 for good and its requests hang, the harder of the two.
    "expert_parallel": False,
    "engine_path": standin.PATH,
    "allow_oversubscription": True,
    "allow_unpinned_code": True,
    "ready_timeout": 600,
    "offline": True,
    "rdma": "off",
    "preflight_pairs": False,
}
REAL = {"ready_timeout": 1200}
"""Over group_data/sandbox.py, which is what makes the real engine small enough."""
INVENTORY = """\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = (_hosts({name!r})[:2], {settings!r})
"""
NOTICED = re.compile(r"muster: ending: |muster: \w+ -> (abort|drain)|Main process exited|Watchdog timeout|^Stopping ")
"""What a unit's journal says first when a group ends, by the guard or by systemd."""


class Late(AssertionError):
    """Something did not happen in time: what was waited for, and what the guards say."""


class Group:
    """The group under test, watched from its deployment on.

    Args:
        box: at least two hosts; the first one is the head.
        engine: "standin" or "real".
    """

    def __init__(self, box: Sandbox, engine: str = "standin") -> None:
        self.box, self.engine = box, engine
        self.watch = Watch(box, UNIT)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._folder = tempfile.TemporaryDirectory(prefix="muster-faults-")

    def __enter__(self) -> Group:
        self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watch.end()
        self._folder.cleanup()

    def deploy(self, supervisor: str = "guard", **settings: Any) -> None:
        """Run the deploy command; it must succeed."""
        folder = Path(self._folder.name)
        reachable = serving_settings.open_to_this_machine(self.box.name)
        given = {"supervisor": supervisor, **(STANDIN if self.engine == "standin" else REAL), **reachable, **settings}
        inventory = folder / ("inventory.py" if self.engine == "standin" else "sandbox.py")
        inventory.write_text(INVENTORY.format(name=self.box.name, settings=given))
        if self.engine == "standin":
            for host in HOSTS:
                if not (self.box.tree(host) / standin.PATH.lstrip("/")).is_dir():
                    standin.place(self.box.tree(host))
        words = [str(Path(sys.executable).parent / "pyinfra"), "-y", str(inventory), "deploys/kimi_k2_instruct.py"]
        env = {**os.environ, "MUSTER_SANDBOX": self.box.name, "XDG_STATE_HOME": str(folder / "state")}
        done = subprocess.run(
            words, cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500
        )
        if done.returncode != 0:
            raise AssertionError(done.stdout[-4000:] + done.stderr[-4000:])

    # Hosts

    def sh(self, host: str, script: str, *, check: bool = True, timeout: float = 60) -> str:
        """Run a shell script on a host as root, through its namespaces."""
        done = self.box.exec(host, ["/bin/sh", "-c", f"cd /; {script}"], check=check, timeout=timeout)
        return done.stdout.strip()

    def both(self, script: str) -> None:
        """Run a shell script on both hosts at once."""
        threads = [threading.Thread(target=self.sh, args=(host, script)) for host in HOSTS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def address(self, host: str) -> str:
        return str(self.box.state.host(host).address)

    def cursors(self) -> dict[str, str]:
        """Where each host's journal ends now."""
        return {host: self.box.journal_cursor(host) for host in HOSTS}

    def journal(self, cursors: dict[str, str]) -> list[tuple[float, str, str]]:
        """The units' journal lines since then: (monotonic seconds, host, text), in order.

        A host's clock for this is the machine's own: containers share the kernel.
        """
        entries = []
        for host, cursor in cursors.items():
            fields = "--output-fields=MESSAGE,__MONOTONIC_TIMESTAMP"
            words = ["/usr/bin/journalctl", "--no-pager", "-o", "json", fields, "-u", UNIT, f"--after-cursor={cursor}"]
            for line in self.box.exec(host, words).stdout.splitlines():
                entry = json.loads(line)
                text = entry["MESSAGE"] if isinstance(entry["MESSAGE"], str) else ""
                entries.append((int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6, host, text))
        return sorted(entries)

    def noticed_at(self, cursors: dict[str, str]) -> float | None:
        """When a journal first mentions the group's end, after the cursors."""
        return next((at for at, _, text in self.journal(cursors) if NOTICED.search(text)), None)

    # Processes

    def alive(self, host: str, role: str) -> list[Sighting]:
        """Living processes of one host's unit: `guard`, `vllm` (what the guard started), or by a part of their title.

        Sorted by age, oldest first: what an engine process forks carries its title too.
        """
        processes = []
        for each in sorted(self.watch.alive, key=lambda one: one.started):
            if each.host != host:
                continue
            title = Path(f"/proc/{each.pid}/cmdline")
            try:
                now = title.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if role == "guard":
                matches = each.is_guard
            elif role == "vllm":
                matches = bool(each.generation) and " serve " in now
            else:
                matches = bool(each.generation) and role in now
            if matches:
                processes.append(each)
        return processes

    def signal(self, host: str, role: str, number: int) -> Sighting:
        """Send a signal to the oldest process of a role."""
        victims = self.alive(host, role)
        if not victims:
            raise AssertionError(f"{host} has no process {role!r}: {[each.title[:60] for each in self.watch.alive]}")
        os.kill(victims[0].pid, number)
        return victims[0]

    # The guards and the endpoint

    def get(self, path: str, port: int = CONTROL, timeout: float = 3.0) -> tuple[int, str]:
        """GET from the head; status 0 when nothing answers."""
        try:
            with self._opener.open(f"http://{self.address(HEAD)}:{port}{path}", timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def status(self) -> dict[str, Any]:
        """The group as the head's guard sees it; empty while nothing answers."""
        return guard_answers.group_status(self.box, HEAD, NAME)

    def ready(self) -> bool:
        return self.get("/ready")[0] == 200

    def complete(self, rank: int, tokens: int = 1, timeout: float = 10.0) -> bool:
        """One completion through one DP rank."""
        body = {"model": "kimi-k2", "prompt": "1 2 3 4 5 6 7 8", "max_tokens": tokens}
        headers = {"Content-Type": "application/json", "X-data-parallel-rank": str(rank)}
        url = f"http://{self.address(HEAD)}:{ENDPOINT}/v1/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                return bool(answer.status == 200 and json.load(answer)["choices"])
        except (OSError, ValueError, KeyError):
            return False

    def answers(self, timeout: float = 10.0) -> bool:
        """Every DP rank completes a request now."""
        return all(self.complete(rank, timeout=timeout) for rank in RANKS)

    def ctl(self, host: str, *words: str) -> dict[str, Any]:
        """Ask a host's guard, as `muster status` and the deploys do."""
        return guard_answers.ask(self.box, host, NAME, *words)

    def reset_budget(self) -> None:
        """Restore the full budget and no backoff, so that each row is a first failure."""
        self.ctl(HEAD, "resume")

    def wait(self, what: str, holds: Callable[[], Any], seconds: float, every: float = 0.1) -> float:
        """Wait until something holds; the monotonic time at which it did.

        Raises:
            Late: it did not within `seconds`.
        """
        until = time.monotonic() + seconds
        while True:
            if holds():
                return time.monotonic()
            if time.monotonic() > until:
                raise Late(f"{what}: not within {seconds:.0f} s; the head says {self.status().get('reason', '')[:400]}")
            time.sleep(every)

    def until_ready(self, seconds: float = 120.0) -> float:
        """Wait until the guards call the group ready and every rank answers; the time at which it was ready."""
        seconds *= 1 if self.engine == "standin" else 5
        patience = 10.0 if self.engine == "standin" else 60.0

        def holds() -> bool:
            return self.ready() and self.answers(patience)

        return self.wait("the group answers", holds, seconds)

    def restore_service(self) -> None:
        """Bring the group back to serving, so that one row's failure is not the next one's."""
        try:
            self.until_ready()
        except Late:
            self.both("systemctl restart 'muster-*'")
            self.ctl(HEAD, "resume")


class Load:
    """Requests to every rank without pause, until `end`."""

    def __init__(self, group: Group, each: int = 2, tokens: int = 50, ranks: Iterable[int] = RANKS) -> None:
        self.answered = dict.fromkeys(ranks, 0)
        self.failed = dict.fromkeys(ranks, 0)
        self._group, self._tokens = group, tokens
        self._over = threading.Event()
        for rank in self.answered:
            for _ in range(each):
                threading.Thread(target=self._ask, args=(rank,), daemon=True).start()

    def _ask(self, rank: int) -> None:
        while not self._over.is_set():
            if self._group.complete(rank, self._tokens, timeout=30.0):
                self.answered[rank] += 1
            else:
                self.failed[rank] += 1
                self._over.wait(0.5)

    def end(self) -> None:
        self._over.set()


KILL, STOP = signal.SIGKILL, signal.SIGSTOP
