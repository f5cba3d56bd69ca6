"""One host of two is in other hands: `status`, `logs` and a deploy name it, end in time, and print nothing to obey."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator

import pytest

from muster.sandbox import Sandbox
from tests import planted_python
from tests.conftest import Boot
from tests.deploys.conftest import GUARD_UNIT, HOSTS, GuardedTestbed

pytestmark = pytest.mark.sandbox

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
PYTHONS = {
    "garbage": "cat >/dev/null; head -c 100000 /dev/urandom",
    "300 MB in a line": "cat >/dev/null; head -c 300000000 /dev/zero | tr '\\\\0' x; echo",
    "never ends": "sleep 100000",
    "a wrong type": 'cat >/dev/null; echo \'{"ask_guard": {"answer": [1]}, "probe_group": 5, "probe_machine": 7}\'',
    "deep": "cat >/dev/null; printf '{\"ask_guard\": '; head -c 100000 /dev/zero | tr '\\\\0' '['; echo '}'",
}


@pytest.fixture(scope="module")
def box(sandbox: Boot) -> Sandbox:
    return sandbox("hostile", 2)


@pytest.fixture(scope="module")
def group(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> GuardedTestbed:
    """Two hosts on which a guarded group serves."""
    testbed = GuardedTestbed(box, tmp_path_factory.mktemp("hostile"))
    testbed.boot()
    testbed.deploy()
    return testbed


@pytest.fixture
def taken(group: GuardedTestbed) -> Iterator[GuardedTestbed]:
    """The group, and afterwards a python3 on node1 that is its own again."""
    yield group
    group.sh("node1", f"rm -f /{planted_python.PLACE}; pkill -f 'sleep 10000[0]' || true")


def plant(group: GuardedTestbed, body: str) -> None:
    """Put a python3 before the host's own on node1: it passes the test of its version, then does as it likes."""
    text = base64.b64encode(planted_python.doing(body).encode()).decode()
    group.sh("node1", f"echo {text} | base64 -d >/{planted_python.PLACE}; chmod 755 /{planted_python.PLACE}")


@pytest.mark.parametrize("name", PYTHONS)
def test_a_host_that_answers_anything_is_named_and_the_other_is_shown(taken: GuardedTestbed, name: str) -> None:
    plant(taken, PYTHONS[name])
    began = time.monotonic()
    status = taken.muster("status", "--format", "json")
    assert time.monotonic() - began < 400
    assert "Traceback" not in status.stderr
    healthy, hostile = json.loads(status.stdout)["hosts"]
    assert (healthy["host"], healthy["unit"], healthy["note"]) == ("node0", "active (running)", "")
    assert hostile["host"] == "node1"
    assert hostile["note"]
    logs = taken.muster("logs")
    assert logs.returncode == 1
    assert "node0  " in logs.stdout
    assert "node1: " in logs.stderr
    assert not OBEYED.search(status.stdout + logs.stdout + logs.stderr)


@pytest.mark.parametrize("name", ["300 MB in a line", "a wrong type"])
def test_a_deploy_names_it_and_touches_nothing(taken: GuardedTestbed, name: str) -> None:
    plant(taken, PYTHONS[name])
    lives = [taken.life(host, GUARD_UNIT) for host in HOSTS]
    began = time.monotonic()
    ran = taken.refused()
    assert time.monotonic() - began < 400
    assert "Traceback" not in ran.text
    assert "node1" in ran.err
    assert [taken.life(host, GUARD_UNIT) for host in HOSTS] == lives
    assert taken.answers()


def test_a_log_line_writes_no_clipboard(group: GuardedTestbed) -> None:
    message = base64.b64encode(b"<14>vllm: \x1b]52;c;ZXZpbA==\x07\xc2\x9b2J\x1b[2Jshown\x1b[31m").decode()
    # From inside the unit's own control group, so that the journal takes it for a line of the unit.
    script = (
        "import base64, socket, subprocess\n"
        f"pid = subprocess.check_output(['systemctl', 'show', '-P', 'MainPID', '{GUARD_UNIT}'], text=True).strip()\n"
        "place = open(f'/proc/{pid}/cgroup').read().strip().rpartition('::')[2]\n"
        "open(f'/sys/fs/cgroup{place}/cgroup.procs', 'w').write('0')\n"
        "log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "log.connect('/dev/log')\n"
        f"log.send(base64.b64decode('{message}'))\n"
    )
    group.sh("node1", f"echo {base64.b64encode(script.encode()).decode()} | base64 -d | python3")
    raw = group.sh("node1", f"journalctl -q -o cat -n 50 -u {GUARD_UNIT}")
    assert "\x1b]52" in raw
    ran = group.muster("logs", "--lines", "50")
    assert ran.returncode == 0
    assert "shown" in ran.stdout
    assert not OBEYED.search(ran.stdout)
