"""What a second run costs: seconds, CPU seconds and SSH sessions per host, next to the floor and to plain pyinfra.

    python benchmarks/noop.py [--sizes 1,4,8,16] [--repeat 3]

Needs root: boots sandbox hosts, deploys the stand-in engine to the first 1, 4, 8 and 16 of them, and times runs that
change nothing: `muster deploy`, the literal pyinfra command, and a plain script that asks for the same files, user,
directories and unit with pyinfra's own operations. The floor is paramiko alone: one process connects to every host at
once, sends byte for byte what muster's run sent, one probe and one apply (the verification: nothing is to be applied),
and reads the answers. *Bare* sends a line of Python that asks nothing in place of both. All are counted in the same
run, on the same hosts; sessions are counted from sshd's log. CPU seconds are those of the process on the control
machine, and those of all hosts together, from their control groups. Before each run it waits, up to ten seconds, until
the machine has a third of its time to spare, and keeps how many cores others took during the run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import standin  # noqa: E402

from muster.sandbox import Sandbox  # noqa: E402
from muster.sandbox.nspawn_host import cgroup_mounts  # noqa: E402

NAME = "noop"
INVENTORY = """\
from muster.sandbox.as_inventory import hosts as _hosts
hosts = (_hosts({name!r})[:{count}], {settings!r})
"""
SETTINGS = {
    "strategy": "dp-ep",
    "engine_path": standin.PATH,
    "allow_oversubscription": True,
    "allow_unpinned_code": True,
    "ready_timeout": 300,
    "offline": True,
}
PLAIN = """\
from pathlib import Path
from pyinfra import host
from pyinfra.operations import files, server, systemd
server.user(name="user", user="muster", home="/var/lib/muster", shell="/usr/sbin/nologin", system=True)
for _at in ("/opt/muster", "/opt/muster/engines", "/etc/muster", "/var/cache/muster"):
    files.directory(name=_at, path=_at)
_root = Path({out!r}) / host.name
for _file in host.loop(sorted(p for p in _root.rglob("*") if p.is_file())):
    _at = "/" + str(_file.relative_to(_root))
    files.put(name="put " + _at, src=str(_file), dest=_at, mode="644", user="root", group="root")
systemd.service(name="unit", service="muster-kimi-k2-instruct.service", running=True, enabled=True)
"""

# Runs muster as a user does, and keeps what it sends: address -> its sessions, each a command and a text.
RECORD = """\
import json, sys
import pyinfra_cli
from muster.cli import main
from muster.hosts import ssh_session
sessions, converse = {}, ssh_session.converse
def kept(state, host, command, text, arguments, **more):
    sessions.setdefault(host.data.ssh_hostname, []).append([command, text])
    return converse(state, host, command, text, arguments, **more)
ssh_session.converse = kept
try:
    main(["deploy", sys.argv[1], "kimi-k2-instruct", "-y"])
finally:
    with open(sys.argv[2], "w") as file:
        json.dump(sessions, file)
"""
FLOOR = """\
import json, sys
from concurrent.futures import ThreadPoolExecutor
import paramiko
key, known_hosts, sessions = sys.argv[1:]
def both(host):
    address, texts = host
    client = paramiko.SSHClient()
    client.load_host_keys(known_hosts)
    client.connect(address, username="root", key_filename=key, allow_agent=False, look_for_keys=False)
    for command, text in texts:
        stdin, stdout, _ = client.exec_command(command)
        stdin.write(text)
        stdin.channel.shutdown_write()
        answer = stdout.read()
        assert answer.strip().endswith((b"}", b"answered")), answer
    client.close()
with open(sessions) as file, ThreadPoolExecutor(64) as pool:
    list(pool.map(both, json.load(file).items()))
"""
BARE = ["python3 -IS -", "print('answered')\n"]


# As a user's: with the bytecode that their last run has left.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pyinfra or muster from the top of the clone; a failure ends the benchmark with its output."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / words[0]), *words[1:]],
        cwd=ROOT,
        env={**_ENVIRONMENT, "XDG_STATE_HOME": str(directory / "state")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done


def timed(box: Sandbox, count: int, directory: Path, repeat: int, *words: str) -> dict[str, Any]:
    """Time a command `repeat` times; count the sessions of the first host in the last of them."""
    seconds, cpu, on_hosts, host = [], [], [], box.hosts[0].name
    others = []
    for _ in range(repeat):
        mark = box.journal_cursor(host)
        _await_calm()
        before, begun = (_children_cpu(), _hosts_cpu(box, count), _machine_cpu()[0]), time.perf_counter()
        run(directory, *words)
        seconds.append(time.perf_counter() - begun)
        cpu.append(_children_cpu() - before[0])
        on_hosts.append(_hosts_cpu(box, count) - before[1])
        others.append((_machine_cpu()[0] - before[2] - cpu[-1] - on_hosts[-1]) / seconds[-1])
        sessions = len(box.ssh_sessions(host, since=mark))
    return {
        "seconds": statistics.median(seconds),
        "all": [round(s, 2) for s in seconds],
        "cpu": round(statistics.median(cpu), 2),
        "hosts_cpu": round(statistics.median(on_hosts), 2),
        "others": [round(cores, 2) for cores in others],
        "sessions": sessions,
    }


def _await_calm(least: float = 0.35, patience: float = 10.0) -> None:
    """Wait until this machine was idle for that part of a second; what others take all the same is kept, in cores."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        before = _machine_cpu()
        time.sleep(1.0)
        busy, idle = (now - then for now, then in zip(_machine_cpu(), before, strict=True))
        if idle / (busy + idle) >= least:
            return


def _machine_cpu() -> tuple[float, float]:
    """Return the CPU seconds of this machine since it booted, busy and idle."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks) - idle) / os.sysconf("SC_CLK_TCK"), idle / os.sysconf("SC_CLK_TCK")


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _hosts_cpu(box: Sandbox, count: int) -> float:
    """Return the CPU seconds that the first hosts have used since they booted."""
    used = 0.0
    for host in box.hosts[:count]:
        for mount in cgroup_mounts():
            stat = mount / "muster-sandbox" / box.where.names.machine(host.name) / "cpu.stat"
            if stat.is_file():
                used += int(stat.read_text().split()[1]) / 1e6
    return used


def measure(box: Sandbox, count: int, directory: Path, repeat: int) -> dict[str, Any]:
    """Deploy to the first `count` hosts, then time every way of having nothing to do."""
    inventory, plain, out = directory / "inventory.py", directory / "plain.py", directory / f"out{count}"
    inventory.write_text(INVENTORY.format(name=NAME, count=count, settings=SETTINGS))
    run(directory, "pyinfra", "-y", str(inventory), "deploys/kimi_k2_instruct.py")
    ours = timed(box, count, directory, repeat, "muster", "deploy", str(inventory), "kimi-k2-instruct", "-y")
    literal = timed(box, count, directory, repeat, "pyinfra", "-y", str(inventory), "deploys/kimi_k2_instruct.py")
    run(directory, "muster", "plan", str(inventory), "kimi-k2-instruct", "--out", str(out), "--format", "json")
    plain.write_text(PLAIN.format(out=str(out)))
    theirs = timed(box, count, directory, repeat, "pyinfra", "-y", str(inventory), str(plain))
    sessions = directory / "sessions.json"
    run(directory, "python", "-c", RECORD, str(inventory), str(sessions))
    sent: dict[str, list[list[str]]] = json.loads(sessions.read_text())
    ssh = (str(box.key), str(box.known_hosts))
    floor = timed(box, count, directory, repeat, "python", "-c", FLOOR, *ssh, str(sessions))
    sessions.write_text(json.dumps({address: [BARE] * len(texts) for address, texts in sent.items()}))
    bare = timed(box, count, directory, repeat, "python", "-c", FLOOR, *ssh, str(sessions))
    run(directory, "pyinfra", "-y", str(inventory), "deploys/stop.py")
    return {
        "hosts": count,
        "muster": ours,
        "literal": literal,
        "plain": theirs,
        "floor": {**floor, "bytes": [len(text) for _, text in next(iter(sent.values()))]},
        "bare": bare,
        "ratio": theirs["seconds"] / ours["seconds"],
        "over_floor": ours["seconds"] / floor["seconds"],
    }


KEYS = ("muster", "literal", "plain", "floor", "bare")


def _column(took: dict[str, Any]) -> str:
    return f"{took['seconds']:>7.1f}{took['cpu']:>5.1f}{took['hosts_cpu']:>6.1f}{took['sessions']:>4}"


def main() -> None:
    """Boot the hosts, measure every size, print the table, keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,4,8,16")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    sizes = [int(size) for size in given.sizes.split(",")]
    rows = []
    try:
        box = Sandbox.up(NAME, max(sizes), say=lambda line: print(line, file=sys.stderr))
        for host in box.hosts:
            standin.place(box.tree(host.name))
        titles = ("muster", "pyinfra", "plain", "floor", "bare")
        print("seconds, CPU seconds here, CPU seconds of the hosts together, sessions per host")
        print(f"{'hosts':>5} {''.join(f'{title:>22}' for title in titles)} {'plain/muster':>13} {'muster/floor':>13}")
        for size in sizes:
            with tempfile.TemporaryDirectory() as directory:
                row = measure(box, size, Path(directory), given.repeat)
            rows.append(row)
            print(
                f"{size:>5} {''.join(map(_column, (row[key] for key in KEYS)))}"
                f" {row['ratio']:>13.1f} {row['over_floor']:>13.1f}",
                flush=True,
            )
    finally:
        Sandbox.named(NAME).down()
    result = {
        "date": date.today().isoformat(),
        "pyinfra": version("pyinfra"),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "rows": rows,
    }
    place = ROOT / "benchmarks" / "results" / f"{result['date']}-noop.json"
    place.write_text(json.dumps(result, indent=1) + "\n")
    print(f"kept in {place.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
