"""Walk once through the life of a group, from a fresh clone to nothing left, and record it as docs/walk.md.

    python3 benchmarks/walk.py                      as root on Debian or Ubuntu; some minutes longer than script/sandbox
    python3 benchmarks/walk.py --out docs/walk.md   keep the record
    python3 benchmarks/walk.py --keep               leave clone and sandbox there for a look

Every command runs in a clone of this repository's last commit, as a person would type it. The walk ends at the first
command whose exit status or output is not as expected. The record shows commands and what they printed, long output cut
in the middle, without colours and without paths of this machine.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS = 1800
"""For one command; the real engine's installation is the longest."""
FIRST, LAST = 12, 10
"""Lines of a long output that are shown."""
WIDTH = 160
_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9])")
_URL = re.compile(r"https?://(?!10\.|localhost|127\.)[^\s,;)'\"]+")

RECIPE, HOSTS = "kimi-k2-instruct", "inventories/sandbox.py"


@dataclass(frozen=True)
class Command:
    """A command as it is typed.

    Args:
        text: for the shell.
        expect: a regular expression that its output must match somewhere.
        status: its exit status.
    """

    text: str
    expect: str = ""
    status: int = 0


@dataclass(frozen=True)
class Section:
    """A part of the walk: a title, what it shows, and its commands."""

    title: str
    prose: str
    commands: tuple[Command, ...]


SET_UP = Section(
    "Set up",
    "One script makes `.venv`; as root it also installs the distribution's packages that are missing.",
    (Command("script/setup"), Command(". .venv/bin/activate")),
)
FIRST_ANSWER = Section(
    "First answer",
    "Two hosts with systemd, sshd and addresses of their own; the deploy that serves production; one chat completion\n"
    "through each data parallel rank.",
    (
        Command("muster sandbox up", r"node1  \S+  1 x H200"),
        Command(f"muster deploy {HOSTS} {RECIPE}", "endpoint  http"),
        Command("muster sandbox ask", "rank 1"),
        Command(f"muster status {HOSTS} {RECIPE}", rf"{RECIPE}  running"),
    ),
)
NOTHING_TO_DO = Section("A second run changes nothing", "", (Command(f"muster deploy {HOSTS} {RECIPE}"),))
CHANGE = Section(
    "A changed setting, and back",
    "What changes is shown first. The same command without the setting goes back; the engine is the same, so\n"
    "nothing is installed.",
    (
        Command(f"muster deploy {HOSTS} {RECIPE} --data max_num_seqs=16 --dry --diff", r"\+ .*--max-num-seqs 16"),
        Command(f"muster deploy {HOSTS} {RECIPE} --data max_num_seqs=16 -y", "endpoint  http"),
        Command("muster sandbox ask", "rank 1"),
        Command(f"muster deploy {HOSTS} {RECIPE} -y", "endpoint  http"),
    ),
)
KILL = Section(
    "A kill",
    "The engine of the other host dies. The guards end what is left and start the group again, without this machine.",
    (
        Command("muster sandbox shell node1 pkill -KILL -f bin/vllm.serve"),
        Command("while curl -sf -o /dev/null http://$HEAD:29600/ready; do sleep 0.2; done"),
        Command("until curl -sf http://$HEAD:29600/ready; do sleep 1; done", "running"),
        Command("muster sandbox ask", "rank 1"),
        Command(f"muster status {HOSTS} {RECIPE}", "restarts 1"),
    ),
)
HOST_OUT = Section(
    "A host is taken out",
    "Named as leaving, it is stopped and cleaned in the same run, once the group serves without it.",
    (
        Command(f"echo 'leaving = [\"node1\"]' >>{HOSTS}"),
        Command(f"muster deploy {HOSTS} {RECIPE} -y", "node1 has left: take it out of the inventory"),
        Command(f"muster status {HOSTS} {RECIPE}", rf"{RECIPE}  running"),
        Command(
            "muster sandbox shell node1 'ls -d /etc/muster /opt/muster /var/*/muster; id muster'", "no such user", 1
        ),
        Command(f"sed -i '/^leaving/d; s/hosts = _hosts()$/hosts = _hosts()[:1]/' {HOSTS}"),
        Command(f"muster deploy {HOSTS} {RECIPE}"),
    ),
)
ALL_OUT = Section(
    "Everything is removed",
    "",
    (
        Command(f"muster remove {HOSTS} --everything --dry", "this will stop and remove:"),
        Command(f"muster remove {HOSTS} --everything -y", "gone from node0"),
        Command(
            "muster sandbox shell node0 'ls -d /etc/muster /opt/muster /var/*/muster; id muster'", "no such user", 1
        ),
        Command("muster sandbox down"),
    ),
)
WALK = (SET_UP, FIRST_ANSWER, NOTHING_TO_DO, CHANGE, KILL, HOST_OUT, ALL_OUT)


class Walk:
    """One walk: its clone, its environment, and the record as it grows."""

    def __init__(self, clone: Path, sandbox: str) -> None:
        self.clone, self.sandbox = clone, sandbox
        self.env = {**os.environ, "MUSTER_SANDBOX": sandbox, "NO_COLOR": "1", "COLUMNS": "120"}
        self.env["PATH"] = f"{clone}/.venv/bin:{self.env['PATH']}"
        self.env["XDG_STATE_HOME"] = str(clone / ".state")
        self.record: list[str] = []

    def run(self, command: Command) -> None:
        """Run a command and record it.

        Raises:
            SystemExit: it did not do what is expected.
        """
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command.text],
            cwd=self.clone,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
        seconds = time.monotonic() - began
        output = self.plain(done.stdout)
        print(f"$ {command.text}\n{output}", file=sys.stderr, flush=True)
        if done.returncode != command.status or not re.search(command.expect, output):
            raise SystemExit(
                f"walk: `{command.text}` ended with {done.returncode}, expected {command.status}"
                + (f" and output with /{command.expect}/" if command.expect else "")
            )
        self.record.append(f"    $ {command.text}")
        self.record += [f"    {line}".rstrip() for line in shortened(output.splitlines())]
        self.record += [f"    ({seconds:.0f} s)"] if seconds >= 2 else []
        self.record += [""]

    def plain(self, text: str) -> str:
        """Return output without colours, paths of this machine, and addresses of package indexes."""
        text = _ESCAPE.sub("", text).replace("\r\n", "\n").rpartition("\0")[2]
        for path, name in ((str(self.clone), "."), (str(Path.home()), "~"), (self.sandbox, "muster")):
            text = text.replace(path, name)
        return _URL.sub("https://…", text)


def shortened(lines: list[str]) -> list[str]:
    """Return lines cut at the width of the page, and a long output cut in the middle."""
    lines = [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines if line.strip()]
    if len(lines) <= FIRST + LAST + 2:
        return lines
    return [*lines[:FIRST], f"… {len(lines) - FIRST - LAST} more lines …", *lines[-LAST:]]


def head_address(walk: Walk) -> str:
    """Return the address of the sandbox's first host."""
    command = ["bash", "-c", "muster sandbox status --format json"]
    text = subprocess.run(command, cwd=walk.clone, env=walk.env, capture_output=True, text=True, check=True).stdout
    return re.search(r'"address": "([0-9.]+)"', text).group(1)  # type: ignore[union-attr]


def machine() -> str:
    """Return what the walk ran on, in words."""
    return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {platform.machine()}, {os.cpu_count()} cores"


def clone(place: Path, venv: Path | None, settings: Path | None) -> None:
    """Clone the last commit; with a virtual environment or settings of its own, for tests."""
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(place)], check=True)
    if venv:
        (place / ".venv").symlink_to(venv)
    if settings:
        with (place / "group_data" / "sandbox.py").open("a") as file:
            file.write(settings.read_text())
        subprocess.run(
            ["git", "-c", "user.name=walk", "-c", "user.email=walk@localhost", "commit", "-qam", "settings"],
            cwd=place,
            check=True,
        )


def main() -> None:
    """Walk, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the record goes; standard output otherwise")
    parser.add_argument("--name", default="walk", help="of the sandbox")
    parser.add_argument("--venv", type=Path, help="a virtual environment to use in place of a new one (tests)")
    parser.add_argument("--settings", type=Path, help="added to group_data/sandbox.py (tests)")
    parser.add_argument("--keep", action="store_true", help="leave clone and sandbox there")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="muster-walk-")) / "muster"
    clone(place, given.venv, given.settings)
    walk = Walk(place, given.name)
    try:
        for section in WALK:
            walk.record += [f"## {section.title}", "", *([section.prose, ""] if section.prose else [])]
            for command in section.commands:
                walk.run(command)
                if command.text == "muster sandbox up":
                    walk.env["HEAD"] = head_address(walk)
    finally:
        if not given.keep:
            subprocess.run([place / ".venv/bin/muster", "sandbox", "down", "--name", given.name], check=False)
            shutil.rmtree(place.parent)
    text = (
        HEADER.format(date=datetime.date.today(), machine=machine(), engine=STANDIN if given.settings else REAL)
        + "\n".join(walk.record).rstrip()
        + "\n"
    )
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    else:
        print(text)


REAL = "vLLM is real (its CPU build), the model tiny and untrained."
STANDIN = """\
The engine of this record is the tests' stand-in, which starts in seconds; run by hand, the walk
takes the real vLLM."""
HEADER = """\
# One walk

From a fresh clone to nothing left: every command as it was typed, and what it printed, long output cut in the middle.
Recorded by `benchmarks/walk.py` on {date} ({machine}).
GPUs are simulated. {engine} On hosts of your own the commands are the same.

    git clone <this repository> muster && cd muster

"""

if __name__ == "__main__":
    main()
