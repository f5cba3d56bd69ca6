"""What a second run costs: seconds and SSH sessions a host, next to the floor and to the same work as plain pyinfra.

    python benchmarks/noop.py [--sizes 1,4,8,16] [--repeat 3]

Needs root: boots sandbox hosts, deploys the stand-in engine to the first 1, 4, 8 and 16 of them, and times runs that
change nothing. The plain script asks for the same files, user, directories and unit with pyinfra's own operations.
The floor is paramiko alone: one process connects to every host at once and has the host's Python answer twice, with
nothing asked. All are counted in the same run, on the same hosts; sessions are counted from sshd's log and contain
*verify*.
"""

from __future__ import annotations

import argparse
import json
import os
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

FLOOR = """\
import sys
from concurrent.futures import ThreadPoolExecutor
import paramiko
key, known_hosts, *addresses = sys.argv[1:]
def both(address):
    client = paramiko.SSHClient()
    client.load_host_keys(known_hosts)
    client.connect(address, username="root", key_filename=key, allow_agent=False, look_for_keys=False)
    for _ in ("probe", "apply"):
        stdin, stdout, _ = client.exec_command("python3 -IS -")
        stdin.write("print('answered')")
        stdin.channel.shutdown_write()
        assert stdout.read() == b"answered\\n"
    client.close()
with ThreadPoolExecutor(len(addresses)) as pool:
    list(pool.map(both, addresses))
"""


def run(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pyinfra or muster from the top of the clone; a failure ends the benchmark with its output."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / words[0]), *words[1:]],
        cwd=ROOT,
        env={**os.environ, "XDG_STATE_HOME": str(directory / "state")},
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
    seconds, host = [], box.hosts[0].name
    for _ in range(repeat):
        mark = box.journal_cursor(host)
        begun = time.perf_counter()
        run(directory, *words)
        seconds.append(time.perf_counter() - begun)
        sessions = len(box.ssh_sessions(host, since=mark))
    return {"seconds": statistics.median(seconds), "all": [round(s, 2) for s in seconds], "sessions": sessions}


def measure(box: Sandbox, count: int, directory: Path, repeat: int) -> dict[str, Any]:
    """Deploy to the first `count` hosts, then time both ways of having nothing to do."""
    inventory, plain, out = directory / "inventory.py", directory / "plain.py", directory / f"out{count}"
    inventory.write_text(INVENTORY.format(name=NAME, count=count, settings=SETTINGS))
    run(directory, "pyinfra", "-y", str(inventory), "deploys/kimi_k2_instruct.py")
    ours = timed(box, count, directory, repeat, "pyinfra", "-y", str(inventory), "deploys/kimi_k2_instruct.py")
    run(directory, "muster", "plan", str(inventory), "kimi-k2-instruct", "--out", str(out), "--format", "json")
    plain.write_text(PLAIN.format(out=str(out)))
    theirs = timed(box, count, directory, repeat, "pyinfra", "-y", str(inventory), str(plain))
    addresses = [host.address for host in box.hosts[:count]]
    floor = timed(box, count, directory, repeat, "python", "-c", FLOOR, str(box.key), str(box.known_hosts), *addresses)
    run(directory, "pyinfra", "-y", str(inventory), "deploys/stop.py")
    return {
        "hosts": count,
        "muster": ours,
        "plain": theirs,
        "floor": floor,
        "ratio": theirs["seconds"] / ours["seconds"],
        "over_floor": ours["seconds"] / floor["seconds"],
    }


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
        print(
            f"{'hosts':>5} {'muster s':>9} {'sessions':>9} {'plain s':>8} {'sessions':>9} {'plain/muster':>13}"
            f" {'floor s':>8} {'muster/floor':>13}"
        )
        for size in sizes:
            with tempfile.TemporaryDirectory() as directory:
                row = measure(box, size, Path(directory), given.repeat)
            rows.append(row)
            print(
                f"{size:>5} {row['muster']['seconds']:>9.1f} {row['muster']['sessions']:>9}"
                f" {row['plain']['seconds']:>8.1f} {row['plain']['sessions']:>9} {row['ratio']:>13.1f}"
                f" {row['floor']['seconds']:>8.1f} {row['over_floor']:>13.1f}",
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
