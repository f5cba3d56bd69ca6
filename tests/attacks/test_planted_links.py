"""What the engine's or a tool's user plants on a real host, against every program that root runs over it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from muster.on_host import run_tool
from muster.sandbox import Sandbox
from tests.attacks.host_programs import ask, shell
from tests.conftest import Boot

pytestmark = pytest.mark.sandbox

TOOL = "muster-bench-20260101t000000z-attack-1"
STATE = "find /victim -printf '%p %y %U:%G %m %s %T@ %n\\n' -type f -exec sha256sum {} +"
PLANT = """
cd /var/lib/muster/g
mkdir -p muster-bench-x sub
ln -sfn /victim/file held.json
ln -sfn /victim/dir link
ln -sfn /victim/new new
mkfifo fifo
ln -sfn /dev/zero zero
ln -sfn /victim/dir /var/cache/muster/g/vllm
"""


@pytest.fixture(scope="module")
def box(sandbox: Boot) -> Sandbox:
    """A host with the engine's user, its directories as they were and as they are, and what is not its."""
    box = sandbox("attacks", hosts=2)
    users = "id muster >/dev/null 2>&1 || useradd --system --user-group --home-dir /var/lib/muster muster;"
    victims = "umask 077; rm -rf /victim; mkdir -p /victim/dir; echo own > /victim/file; echo kept > /victim/dir/kept;"
    own = "mkdir -p /etc/muster/g; cd /etc/muster/g; echo VLLM_API_KEY=s3cret-word > secrets.env; echo k > guard-key;"
    engine = "rm -rf /var/lib/muster /var/cache/muster; umask 022; mkdir -p /var/lib/muster/g /var/cache/muster/g;"
    # As an earlier muster left it: the parents are the engine's too.
    owners = "chown -R muster:muster /var/lib/muster /var/cache/muster"
    shell(box, "node0", users + victims + own + engine + owners)
    return box


@pytest.fixture
def victims(box: Sandbox) -> Iterator[None]:
    """Nothing outside the user's own directories changes, and no program takes long."""
    before, began = shell(box, "node0", STATE), time.monotonic()
    yield
    assert shell(box, "node0", STATE) == before
    assert time.monotonic() - began < 300


def as_engine(box: Sandbox, script: str) -> str:
    """Run a script as the engine's user."""
    return box.exec("node0", ["/sbin/runuser", "-u", "muster", "--", "/bin/sh", "-c", script]).stdout


@pytest.mark.usefixtures("victims")
def test_a_probe_reads_nothing_that_is_not_the_groups(box: Sandbox) -> None:
    as_engine(box, PLANT)
    for make in ("ln -s /victim/file", "ln -s /dev/zero", "ln -s fifo", "mkfifo", "mkdir", "echo '[1]' >"):
        as_engine(box, f"cd /var/lib/muster/g; rm -rf held.json; {make} held.json")
        began = time.monotonic()
        answer = ask(box, "node0", "probe_group", group="g", units=[])
        assert (make, answer["held"]) == (make, "")
        assert time.monotonic() - began < 100


@pytest.mark.usefixtures("victims")
def test_files_are_placed_through_no_link(box: Sandbox) -> None:
    as_engine(box, PLANT)
    for path in ("/var/lib/muster/g/link/x", "/var/lib/muster/g/link/deeper/x", "/var/cache/muster/g/vllm/x"):
        item = {"path": path, "text": "x", "sha256": "0", "mode": "644", "owner": "root", "group": "root"}
        for do in ("base", "stage"):
            answer = ask(box, "node0", "place_files", do=do, files=[item], group="g")
            assert "symbolic link" in answer["error"], answer


@pytest.mark.usefixtures("victims")
def test_an_installation_takes_no_cache_of_the_engines(box: Sandbox) -> None:
    as_engine(box, "rm -rf /var/cache/muster/uv; ln -s /victim/dir /var/cache/muster/uv")
    request = {
        "path": "/opt/muster/tools/t", "program": "t", "python": "3.11", "requirements": ["t"], "install_args": [],
        "env": {}, "uv": "/bin/false", "uv_payload": None, "python_dir": "/opt/muster/python",
        "cache_dir": "/var/cache/muster/uv",
    }  # fmt: skip
    answer = ask(box, "node0", "install_tool", **request)
    assert "ended with 1" in answer["error"], answer
    assert shell(box, "node0", "stat -c '%F %U' /var/cache/muster/uv") == "directory root\n"


@pytest.mark.usefixtures("victims")
def test_notes_about_engines_are_roots(box: Sandbox) -> None:
    as_engine(box, "rm -rf /var/lib/muster/accepted; ln -s /victim/dir /var/lib/muster/accepted")
    release = "/opt/muster/engines/stamped"
    answer = ask(box, "node0", "probe_group", group="g", release={"path": release, "spec": "s"}, argvs=[["vllm"]])
    assert answer["accepted"] == [False]
    accept = "import json, sys; print(json.dumps([str() for _ in json.load(sys.stdin)['argvs']]))"
    python = f'#!/bin/sh\nexec /usr/bin/python3 -c "{accept}"\n'
    write = f"umask 022; mkdir -p {release}/bin; cat > {release}/bin/python; chmod 755 {release}/bin/python"
    box.exec("node0", ["/bin/sh", "-c", write], stdin=python)
    assert ask(box, "node0", "ask_parser", release={"path": release}, argvs=[["vllm"]]) == {"refused": []}
    assert shell(box, "node0", "stat -c '%F %U' /var/lib/muster/accepted") == "directory root\n"
    answer = ask(box, "node0", "probe_group", group="g", release={"path": release, "spec": "s"}, argvs=[["vllm"]])
    assert answer["accepted"] == [True]


def start(box: Sandbox, script: str) -> None:
    request = {"argv": ["/bin/sh", "-c", script], "env": {}, "seconds": 60, "files": {"task.yaml": "task: x\n"}}
    answer = ask(box, "node0", "run_tool", do="start", name=TOOL, api_key_file="/etc/muster/g/secrets.env", **request)
    assert answer == {}, answer


def finish(box: Sandbox) -> dict[str, object]:
    """Poll until the tool has ended."""
    deadline = time.monotonic() + 60
    while True:
        state = ask(box, "node0", "run_tool", do="poll", name=TOOL, result=".json")
        if state.get("running") is not True or time.monotonic() > deadline:
            return state
        time.sleep(0.5)


@pytest.fixture
def ended(box: Sandbox) -> Iterator[None]:
    """The tool is gone afterwards, with all that it has written."""
    yield
    assert ask(box, "node0", "run_tool", do="end", name=TOOL) == {}
    left = f"ls -d /run/{TOOL} /run/private/{TOOL} /run/muster-tools/{TOOL} 2>/dev/null || true"
    assert shell(box, "node0", left) == ""


@pytest.mark.usefixtures("victims", "ended")
def test_a_tool_gets_nothing_of_the_engines_and_leads_root_nowhere(box: Sandbox) -> None:
    as_engine(box, PLANT + f"ln -sfn /victim/dir /var/lib/muster/g/{TOOL}; ln -sfn /victim/dir /var/lib/muster/{TOOL}")
    secrets = "/etc/muster/g/guard-key /etc/muster/g/secrets.env /victim/file /proc/1/environ"
    script = f"""
        [ "$OPENAI_API_KEY" = s3cret-word ] && [ "$(cat task.yaml)" = "task: x" ] && echo key and files
        for file in {secrets}; do cat $file >/dev/null 2>&1 && echo read $file; done
        for place in /var/lib/muster/g /var/cache/muster/g /etc /run /opt /victim; do
            touch $place/x 2>/dev/null && echo wrote $place
        done
        ln -s /victim/file a.json; mkfifo b.json; ln -s /dev/zero c.json; mkdir d.json; ln -s /victim out
        echo right > r.json; touch -d 2001-01-01 r.json
        echo $USER; exit 0
    """
    start(box, script)
    state = finish(box)
    assert (state["running"], state["status"], state["result"]) == (False, 0, "right\n"), state
    assert state["lines"] == ["key and files", "muster-tools"], state


@pytest.mark.usefixtures("victims", "ended")
def test_a_result_without_end_is_refused(box: Sandbox) -> None:
    start(box, "head -c 40000000 /dev/zero > r.json")
    assert "larger than" in str(finish(box)["error"])


@pytest.mark.usefixtures("ended")
def test_a_tools_unit_is_as_hard_as_the_engines(box: Sandbox) -> None:
    start(box, "sleep 30")
    shown = box.exec("node0", ["/bin/systemd-analyze", "security", "--no-pager", f"{TOOL}.service"], check=False).stdout
    found = re.search(r"Overall exposure level .*: ([\d.]+)", shown)
    assert found, shown
    assert float(found[1]) <= 1.6, shown
    assert f"User={run_tool.USER}\nDynamicUser=yes" in shell(box, "node0", f"systemctl show -p User,DynamicUser {TOOL}")
    assert "s3cret-word" not in shell(box, "node0", f"systemctl show {TOOL}; cat /proc/*/cmdline; systemctl cat {TOOL}")
