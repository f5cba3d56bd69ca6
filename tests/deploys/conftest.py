"""Real systemd hosts, two unless a module has others, with the stand-in engine, and pyinfra as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from muster.sandbox import Sandbox, serving_settings, tiny_model
from tests import guard_answers, standin
from tests.conftest import Boot

REPOSITORY = Path(__file__).parent.parent.parent
GROUP = "kimi-k2-instruct"
UNIT = f"muster-{GROUP}-vllm.service"
GUARD_UNIT = f"muster-{GROUP}.service"
GUARD_STATE = f"/var/lib/muster/{GROUP}"
HOSTS = ("node0", "node1")
THREE = (*HOSTS, "node2")
INDEX = "srv/simple/vllm"
"""Where a host's own package index lies, without the leading slash."""

INVENTORY = """\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = (_hosts({name!r}), {settings!r})
"""


@dataclass(frozen=True)
class Ran:
    """What one run of pyinfra did."""

    status: int
    out: str
    err: str
    sessions: dict[str, int]
    """SSH sessions that each host's sshd logged during the run."""

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def results(self) -> dict[str, Any]:
        """What `--json` printed of the run."""
        found: dict[str, Any] = json.loads(self.out)["results"]
        return found

    @property
    def changes(self) -> dict[str, list[str]]:
        """Operation -> hosts it would change, as `--json --dry` printed it."""
        plan = json.loads(self.out)["plan"]
        return {step["name"]: step["hosts_with_change"] for step in plan if step["hosts_with_change"]}


class Testbed:
    """The sandbox's hosts and the group on them."""

    __test__ = False  # a helper, whatever pytest reads out of its name
    inventory = INVENTORY
    run_seconds = 300
    """Seconds after which a run hangs."""

    def __init__(self, box: Sandbox, directory: Path) -> None:
        self.box, self.directory = box, directory
        self.state = directory / "state"
        # A clone of its own to run in, as far as pyinfra looks: what one run keeps there is not another test's.
        for name in ("deploys", "group_data", "config.py"):
            if not (directory / name).is_symlink():
                (directory / name).symlink_to(REPOSITORY / name)

    def start(self, deploy: str = "kimi_k2_instruct", *flags: str, **settings: Any) -> subprocess.Popen[str]:
        """Start pyinfra on one of the deploy scripts; settings beat those of the inventory."""
        given = {
            "supervisor": "systemd",
            "strategy": "dp-ep",
            "engine_path": standin.PATH,
            "allow_oversubscription": True,
            "allow_unpinned_code": True,
            "expert_parallel": False,  # the tiny model has none
            "model_shape": dict(tiny_model.SHAPE),  # so that the disk need not hold a terabyte
            "rdma": "off",
            "ready_timeout": 60,
            **serving_settings.open_to_this_machine(self.box.name),
        }
        inventory = self.directory / "inventory.py"
        inventory.write_text(self.inventory.format(name=self.box.name, settings={**given, **settings}))
        command = [Path(sys.executable).parent / "pyinfra", *flags, inventory, f"deploys/{deploy}.py"]
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def muster(
        self, command: str, *words: str, inventory: str = "inventory.py", stderr: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        """Run a subcommand of `muster` on the group; otherwise as `command_of`."""
        return self.command_of(command, inventory, GROUP, *words, stderr=stderr)

    def command_of(self, *words: str, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        """Run `muster` with these words, with no terminal, in the directory of the last run's inventory."""
        return subprocess.run(
            [str(Path(sys.executable).parent / "muster"), *words],
            cwd=self.directory,
            env={**self.environment, "COLUMNS": "80"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            timeout=300,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """Of the commands that are run here."""
        return {**os.environ, "XDG_STATE_HOME": str(self.state)}

    def run(self, deploy: str = "kimi_k2_instruct", *flags: str, **settings: Any) -> Ran:
        """Run pyinfra to its end."""
        cursors = {name: self.box.journal_cursor(name) for name in self.up}
        child = self.start(deploy, *flags, **settings)
        try:
            out, err = child.communicate(timeout=self.run_seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            said = "".join(child.communicate())
            raise AssertionError(f"pyinfra has not ended within {self.run_seconds} s:\n{said}") from None
        up = self.up
        sessions = {name: len(self.box.ssh_sessions(name, since=cursors[name])) for name in cursors if name in up}
        return Ran(child.returncode, out, err, sessions)

    def deploy(self, *flags: str, **settings: Any) -> Ran:
        """Run the deploy with `-y`; it must succeed."""
        ran = self.run("kimi_k2_instruct", "-y", *flags, **settings)
        assert ran.status == 0, ran.text
        return ran

    def refused(self, *flags: str, **settings: Any) -> Ran:
        """Run the deploy with `-y`; it must fail."""
        ran = self.run("kimi_k2_instruct", "-y", *flags, **settings)
        assert ran.status != 0, ran.text
        return ran

    @contextmanager
    def crashing(self, words: str, hosts: Sequence[str] = (), only_with: str = "") -> Iterator[None]:
        """Have the stand-in end with these words while it starts: on all hosts or these, or by its command line."""
        names = hosts or self.hosts
        for name in names:
            self.sh(name, f"mkdir -p /etc/standin; echo '{only_with}' >/etc/standin/crash_if")
            self.sh(name, f"echo '{words}' >/etc/standin/crash")
        try:
            yield
        finally:
            for name in names:
                self.sh(name, "rm -f /etc/standin/crash /etc/standin/crash_if")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of the sandbox's hosts; the group's head is the first one."""
        return tuple(host.name for host in self.box.hosts)

    @property
    def up(self) -> list[str]:
        return [told.host.name for told in self.box.status() if told.answers]

    @property
    def now(self) -> str:
        """The time on all hosts, in UTC."""
        return datetime.now(timezone.utc).isoformat()

    def sh(self, host: str, script: str) -> str:
        """Run a shell script on a host as root, through no SSH session."""
        return self.box.exec(host, ["/bin/sh", "-c", f"cd /; {script}"]).stdout.strip()

    def command_line(self, host: str) -> str:
        """Return the words of a host's oldest `vllm serve`."""
        return self.sh(host, "tr '\\0' ' ' </proc/$(pgrep -f -o '[v]llm serve')/cmdline")

    def life(self, host: str, unit: str = UNIT) -> str:
        """Return the identity of a unit's current life; another one means that it was started anew."""
        return self.sh(host, f"systemctl show --value --property=InvocationID {unit}")

    def lives(self) -> dict[str, str]:
        return {name: self.life(name) for name in self.hosts}

    def starts(self, host: str, unit: str = UNIT) -> int:
        """Return how often a unit has been started since the journal began."""
        return int(self.sh(host, f"journalctl -q -o cat -u {unit} | grep -c '^Started ' || true"))

    def files(self, host: str) -> str:
        """Return sizes and times of every file that muster could touch on a host, but for notes of accepted flags."""
        etc = ("muster", "systemd/system", "sysusers.d", "tmpfiles.d", "sysctl.d")
        places = " ".join([*(f"/etc/{name}" for name in etc), "/opt/muster", "/var/lib/muster"])
        told = "-type f -not -path '*/accepted/*' -printf '%p %T@ %m %u %s\\n'"
        return self.sh(host, f"find {places} {told} 2>/dev/null | sort || true")

    def answers(self, model: str = "kimi-k2", *, host: int = 0, rank: int | None = None, tokens: int = 1) -> bool:
        """Whether a host's endpoint completes a prompt right now, through `rank` by that host's count where given."""
        body = json.dumps({"model": model, "prompt": "1", "max_tokens": tokens}).encode()
        headers = {"Content-Type": "application/json"} | ({} if rank is None else {"X-data-parallel-rank": str(rank)})
        url = f"http://{self.box.hosts[host].address}:8000/v1/completions"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def wait(self, what: str, holds: Any, seconds: float = 180) -> None:
        """Wait until something holds.

        Raises:
            AssertionError: it did not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if holds():
                return
            time.sleep(0.2)
        raise AssertionError(f"{what}: not within {seconds} s")

    def boot(self) -> None:
        """Start hosts that are down, and put the stand-in where it is missing."""
        for name in self.hosts:
            self.box.start(name)
            if not (self.box.tree(name) / standin.PATH.lstrip("/")).is_dir():
                standin.place(self.box.tree(name))

    def clear(self) -> None:
        """Take every trace of muster off the hosts."""
        for name in self.hosts:
            self.sh(
                name,
                "systemctl stop 'muster-*' 2>/dev/null; systemctl disable $(cd /etc/systemd/system && ls -d muster-*"
                " 2>/dev/null) 2>/dev/null; rm -rf /etc/muster /etc/systemd/system/muster-* /etc/standin /opt/muster"
                " /var/lib/muster/accepted /etc/sysctl.d/90-muster.conf; systemctl daemon-reload; true",
            )
            standin.place(self.box.tree(name))


def page(directory: Path) -> str:
    """Return the page of a package index for the wheels of a directory, each with its SHA-256."""
    rows = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.glob("*.whl"))}
    link = '<a href="{0}#sha256={1}" data-core-metadata="true">{0}</a>\n'
    return "".join(link.format(name, digest) for name, digest in rows.items())


class GuardedTestbed(Testbed):
    """Like `Testbed`, with the guard, and steps slow enough for a request to be in flight."""

    def run(self, deploy: str = "kimi_k2_instruct", *flags: str, **settings: Any) -> Ran:
        return super().run(deploy, *flags, **{"supervisor": "guard", **settings})

    def done(self, deploy: str, **settings: Any) -> Ran:
        """Run a deploy script; it must succeed."""
        ran = self.run(deploy, "-y", **settings)
        assert ran.status == 0, ran.text
        return ran

    @property
    def status(self) -> dict[str, Any]:
        """What the head's guard says; empty where it does not."""
        return guard_answers.group_status(self.box, self.hosts[0], GROUP)

    def ready(self) -> bool:
        """Whether `/ready` says 200 right now."""
        return guard_answers.ready(self.box)

    def events(self, since: str) -> list[dict[str, Any]]:
        """Return what `muster events` lists of the group since a time in UTC."""
        ran = self.muster("events", "--since", since, "--format", "json")
        assert ran.returncode == 0, ran.stderr
        found: list[dict[str, Any]] = json.loads(ran.stdout)
        return found

    def processes(self) -> dict[str, str]:
        """Return the engine's processes of each host, without one that stands by for the next generation."""
        find = "pgrep -af '^(/opt/standin/bin/python|VLLM::)' | grep -v /standby_program.py | cut -d' ' -f1"
        return {name: self.sh(name, f"{find} | grep . || echo none") for name in self.hosts}

    def bundles(self) -> dict[str, str]:
        return {name: self.sh(name, f"ls {GUARD_STATE}/failures 2>/dev/null || true") for name in self.hosts}


def wheel(directory: Path, version: str) -> None:
    """Make a wheel of the stand-in that claims to be a version of vLLM, and name it on the index page."""
    directory.mkdir(parents=True, exist_ok=True)
    info = f"vllm-{version}.dist-info"
    with zipfile.ZipFile(directory / f"vllm-{version}-py3-none-any.whl", "w") as archive:
        for path in sorted(standin.PACKAGE.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(standin.PACKAGE))
        metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", "[console_scripts]\nvllm = vllm.entrypoints.cli.main:main\n")
        archive.writestr(f"{info}/RECORD", "")
    # With its metadata beside it, a wheel is fetched to be installed, not to be resolved.
    (directory / f"vllm-{version}-py3-none-any.whl.metadata").write_text(metadata)
    (directory / "index.html").write_text(page(directory))


@pytest.fixture(scope="session")
def box(sandbox: Boot) -> Sandbox:
    """Two hosts of one GPU each, for all the tests of this package."""
    return sandbox("deploys", 2)


@pytest.fixture(scope="session")
def three(sandbox: Boot) -> Sandbox:
    """Three hosts of one GPU each, for what must be shown on more than a head and one member."""
    return sandbox("three", 3)


@pytest.fixture
def testbed(box: Sandbox, tmp_path: Path) -> Iterator[Testbed]:
    """Hosts that muster has never touched."""
    there = Testbed(box, tmp_path)
    for name in there.hosts:
        box.start(name)
    there.clear()
    yield there
    for name in there.hosts:
        box.start(name)
        there.sh(name, "rm -rf /etc/standin")


@pytest.fixture
def serving(box: Sandbox, tmp_path: Path) -> Iterator[Testbed]:
    """Hosts on which the group serves; one test leaves it to the next."""
    there = Testbed(box, tmp_path)
    there.boot()
    there.deploy()
    assert there.answers()
    yield there
    for name in there.hosts:
        box.start(name)


@pytest.fixture
def untouched(serving: Testbed) -> Iterator[Testbed]:
    """A group that serves; afterwards the very same processes must serve still, and its files lie as they did."""
    lives, files = serving.lives(), {name: serving.files(name) for name in serving.hosts}
    was = {name: serving.box.gpus(name) for name in serving.hosts}
    yield serving
    for name in serving.hosts:
        serving.box.set_gpus(name, was[name])
    assert serving.lives() == lives
    assert {name: serving.files(name) for name in serving.hosts} == files
    assert serving.answers()


@contextmanager
def guarded_group(box: Sandbox, directory: Path) -> Iterator[GuardedTestbed]:
    """Have a guarded group serve on all hosts of a sandbox, with steps slow enough for a request to be in flight."""
    there = GuardedTestbed(box, directory)
    there.boot()
    for name in there.hosts:
        there.sh(name, "mkdir -p /etc/standin; echo 0.05 >/etc/standin/token_seconds")
    there.deploy()
    for name in there.hosts:
        there.sh(name, f"rm -rf {GUARD_STATE}/failures")
    yield there
    for name in there.hosts:
        there.sh(name, "rm -f /etc/standin/token_seconds")


@pytest.fixture
def guarded(box: Sandbox, tmp_path: Path) -> Iterator[GuardedTestbed]:
    """Hosts on which a guarded group serves."""
    with guarded_group(box, tmp_path) as there:
        yield there
