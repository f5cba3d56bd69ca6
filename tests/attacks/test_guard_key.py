"""The engine's user on a real host looks everywhere for the group's key, and does not find it."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import Boot
from tests.faults.group import HEAD, HOSTS, NAME, UNIT, Group

pytestmark = pytest.mark.sandbox

SEARCH = """
import ctypes, glob, json, os, sys
guard, engine = sys.argv[1:3]
found = {}
def attempt(what, work):
    try:
        found[what] = work()
    except OSError as error:
        found[what] = error.strerror
def memory(pid):
    text = b""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            first, last = (int(part, 16) for part in line.split()[0].split("-"))
            try:
                mem.seek(first)
                text += mem.read(min(last - first, 1 << 20))
            except (OSError, OverflowError, ValueError):
                continue
    return text
def traced(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, int(pid), 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    libc.ptrace(17, int(pid), 0, 0)
    return "traced"
def read(path):
    with open(path, "rb") as file:
        return file.read().decode("latin-1")
attempt("file", lambda: read(f"/etc/muster/{sys.argv[3]}/guard-key"))
attempt("credentials", lambda: "".join(read(path) for path in glob.glob("/run/credentials/muster*/*")))
attempt("memory", lambda: memory(guard).decode("latin-1"))
attempt("environment", lambda: read(f"/proc/{guard}/environ"))
attempt("descriptors", lambda: str(os.listdir(f"/proc/{guard}/fd")))
attempt("standard input", lambda: read(f"/proc/{guard}/fd/0"))
attempt("trace", lambda: traced(guard))
attempt("the engine's environment", lambda: read(f"/proc/{engine}/environ"))
attempt("the engine's memory", lambda: str(len(memory(engine))))
print(json.dumps(found))
"""


@pytest.fixture
def group(sandbox: Boot) -> Group:
    with Group(sandbox("guardkey", 2)) as made:
        made.deploy()
        made.until_ready()
        yield made


def test_the_engines_user_cannot_read_the_groups_key(group: Group) -> None:
    for host in HOSTS:
        key = group.sh(host, f"cat /etc/muster/{NAME}/guard-key")
        assert re.fullmatch("[0-9a-f]{64}", key)
        guard = group.sh(host, f"systemctl show -P MainPID {UNIT}")
        engine = group.sh(host, "pgrep -u muster -f '^/opt/standin/bin/python' | head -1")
        words = ["/usr/sbin/runuser", "-u", "muster", "--", "/usr/bin/python3", "-c", SEARCH, guard, engine, NAME]
        found = json.loads(group.box.exec(host, words).stdout)
        assert "MUSTER_GENERATION" in found["the engine's environment"], "the search works where it may"
        assert found["the engine's memory"].isdigit()
        denied = ("Permission denied", "Operation not permitted")
        for what in ("file", "memory", "environment", "descriptors", "standard input", "trace"):
            assert found[what] in denied, (host, what, found[what][:200])
        assert not [what for what, text in found.items() if key in text]
        # From inside the unit, where its credentials and its own view of /proc are.
        inside = f"nsenter -t {engine} -m -- runuser -u muster -- grep -rl {key[:32]} /run/credentials /proc/{guard}"
        assert group.sh(host, f"{inside} 2>/dev/null; true") == ""
        rating = group.sh(host, f"systemd-analyze security --no-pager {UNIT} | tail -1")
        print(host, rating)
    assert group.ctl(HEAD, "status")["group"]["ready"]
