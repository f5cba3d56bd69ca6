"""An engine's packages came from outside: what a planted vllm or torch gets hold of when muster asks it something."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from muster.hosts import programs
from muster.on_host import run_unprivileged
from muster.plan.load_ranks import LoadRanks
from muster.sandbox import Sandbox
from tests.attacks.host_programs import ask, shell
from tests.conftest import Boot
from tests.on_host.transfer_runs import COMMIT, listing_of

pytestmark = pytest.mark.sandbox

RELEASE = "/opt/muster/engines/planted"
# Tries what a package could want as root, and tells in its exception what it got.
PLANTED = r"""
import ctypes, os, socket
got = []
def attempt(name, act):
    try:
        act()
    except Exception:
        return
    got.append(name)
def connect():
    socket.create_connection(("198.51.100.1", 9), 1)
attempt("root", lambda: os.setuid(0))
attempt("write /etc", lambda: open("/etc/planted", "w"))
attempt("write the release", lambda: open("/opt/muster/engines/planted/planted", "w"))
attempt("write /var/tmp", lambda: open("/var/lib/planted", "w"))
attempt("read a secret", lambda: open("/root/secret").read())
attempt("read a credential", lambda: open("/etc/muster/secret").read())
attempt("mount", lambda: ctypes.CDLL(None, use_errno=True).unshare(0x00020000) and 1 / 0)
attempt("other processes", lambda: open("/proc/1/environ").read())
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
raise RuntimeError("PLANTED uid=%d euid=%d groups=%s caps=%s nnp=%s got=%s env=%s" % (
    os.getuid(), os.geteuid(), 0 in os.getgroups(), status["CapEff"].strip(), status["NoNewPrivs"].strip(),
    got, sorted(set(os.environ) & {"SSH_CONNECTION", "SUDO_USER", "LOADED_SECRET"})))
"""
NOTHING = "euid={uid} groups=False caps=0000000000000000 nnp=1 got=[] env=[]"


@pytest.fixture(scope="module")
def box(sandbox: Boot) -> Sandbox:
    """Two hosts with a release whose packages are an attacker's."""
    box = sandbox("attacks", hosts=2)
    for host in ("node0", "node1"):
        release = f"umask 022; mkdir -p /etc/muster {RELEASE}/bin; ln -sf /usr/bin/python3 {RELEASE}/bin/python;"
        release += f"touch {RELEASE}/bin/vllm; printf 'home = /usr/bin\\nversion = 3\\n' > {RELEASE}/pyvenv.cfg;"
        shell(box, host, release + "umask 077; echo s > /root/secret; echo s > /etc/muster/secret")
    return box


def plant(box: Sandbox, host: str, text: str) -> None:
    """Put a text into the release as vllm and as torch, and let the hub's client use it."""
    write = f"python=$(echo /usr/lib/python3.*/); site={RELEASE}/lib/$(basename $python)/site-packages; umask 022;"
    write += "mkdir -p $site/vllm $site/torch $site/huggingface_hub; cd $site; cat > vllm/__init__.py;"
    # The hub's client must import to be chosen; it strikes when it is used.
    write += "printf 'def __getattr__(name):\\n    import vllm\\n' > huggingface_hub/__init__.py;"
    write += "cp vllm/__init__.py torch/__init__.py"
    box.exec(host, ["/bin/sh", "-c", write], stdin=text)


LISTING = {"model": "o/m", "revision": "0" * 40, "files": [{"path": "a", "size": 1, "sha256": "0" * 64}]}
REQUESTS: dict[str, dict[str, Any]] = {
    "ask_parser": {"release": {"path": RELEASE}, "argvs": [["vllm", "serve", "m"]]},
    "probe_engine": {"path": RELEASE, "import": 60},
    "transfer_stage": {
        "directory": "/var/lib/muster-weights/r", "listing": LISTING, "me": "h", "seed": "h", "address": "127.0.0.1",
        "port": 29001, "peers": {},
        "source": {
            "kind": "hub", "from": "from the hub", "pythons": [f"{RELEASE}/bin/python"], "timeout": 3,
            "program": programs.source("transfer_hub"),
        },
    },
    "run_unprivileged": {
        "python": f"{RELEASE}/bin/python",
        "seconds": 60,
        "program": programs.bundle(
            {
                "measure_allreduce": {
                    "node": 0, "nodes": 1, "gpus": 1, "master": "127.0.0.1", "port": 29000, "interface": None,
                    "backend": "gloo", "bytes": 1024, "seconds": 30,
                }
            }
        ),
    },
}  # fmt: skip


@pytest.mark.parametrize("host", ["node0", "node1"])
@pytest.mark.parametrize("program", REQUESTS)
def test_a_planted_package_runs_as_nobody_who_may_do_anything(box: Sandbox, host: str, program: str) -> None:
    plant(box, host, PLANTED)
    answer = str(ask(box, host, program, **REQUESTS[program]))
    uids = re.findall(r"PLANTED uid=(\d+)", answer)
    assert len(uids) == 1, answer
    uid = uids[0]
    assert int(uid) > 0
    assert NOTHING.format(uid=uid) in answer, answer
    assert shell(box, host, f"ls /etc/planted {RELEASE}/planted /var/lib/planted 2>/dev/null || true") == ""


def test_a_planted_vllm_that_is_to_measure_its_loaders_may_do_nothing_either(box: Sandbox) -> None:
    plant(box, "node0", PLANTED)
    origin = box.tree("node0") / "srv" / "origin"
    origin.mkdir()
    (origin / "model.safetensors").write_bytes(bytes(4096))
    listing = listing_of(origin)
    staged = {"listing": listing.as_data(), "me": "h", "seed": "h", "address": "127.0.0.1", "port": 29001, "peers": {}}
    directory = f"/srv/measured/o--m/{COMMIT}"
    source = {"kind": "directory", "path": "/srv/origin", "from": "from a directory"}
    assert "error" not in ask(box, "node0", "transfer_stage", directory=directory, source=source, **staged)
    asked = {
        "directory": directory, "manifest": listing.digest, "engines": [["planted", RELEASE]], "key": "k", "gpus": [],
        "program": programs.source("measure_loaders"), "load": LoadRanks(1, 1, 1).request(node_rank=0, seconds=30),
        "names": ["instanttensor"], "env": {}, "sample": 1,
    }  # fmt: skip
    answer = ask(box, "node0", "loader_rates", **asked)
    assert answer["loaders"] is None
    uid = re.findall(r"PLANTED uid=(\d+)", answer["why"])[0]
    assert int(uid) > 0
    assert NOTHING.format(uid=uid) in answer["why"], answer
    assert shell(box, "node0", f"ls /etc/planted {RELEASE}/planted /srv/measured/o--m/*.json 2>/dev/null || true") == ""


def test_a_package_that_never_ends_leaves_no_process(box: Sandbox) -> None:
    plant(box, "node0", "import os, signal, time\nsignal.signal(15, 1)\nos.fork() or os.setsid()\ntime.sleep(600)\n")
    before = time.monotonic()
    answer = ask(box, "node0", "probe_engine", path=RELEASE, **{"import": 2})
    assert "did not finish in 2 s" in answer["imported"]["error"], answer
    assert time.monotonic() - before < 400
    time.sleep(1)
    left = "systemctl list-units --all --plain --no-legend 'muster-probe-*'; pgrep -f '[/]opt/muster/engines/' || true"
    assert shell(box, "node0", left) == ""


def test_a_package_that_floods_is_cut(box: Sandbox) -> None:
    plant(box, "node0", "import sys\nwhile True: sys.stdout.write('x' * 65536)\n")
    answer = ask(box, "node0", "ask_parser", **REQUESTS["ask_parser"])
    assert "does not import" in answer["error"]
    assert len(answer["error"]) < run_unprivileged.TAIL_LIMIT + 200, len(answer["error"])


@pytest.mark.parametrize("line", ["[1]", "[[]]", "{}", "[" * 100_000, '["a", "b"]', "null", ""])
def test_an_answer_of_another_type_is_no_acceptance(box: Sandbox, line: str) -> None:
    plant(box, "node0", f"import os\nos.write(1, {line!r}.encode() + b'\\n')\nos._exit(0)\n")
    answer = ask(box, "node0", "ask_parser", **REQUESTS["ask_parser"])
    assert "does not import" in answer["error"], answer


def test_the_question_whether_ray_is_complete_is_no_roots(box: Sandbox) -> None:
    script = 'test "$(id -u)" != 0 && test "$(cat $RAY_AUTH_TOKEN_PATH)" = s && ! cat /root/secret'
    words = ["/usr/bin/env", "RAY_AUTH_TOKEN_PATH=/root/secret", "/bin/sh", "-c", script]
    check = {"kind": "command", "target": words, "text": "joined"}
    answer = ask(box, "node0", "run_units", do="wait", units=[], checks=[check], seconds=1)
    assert answer["done"] is True, answer
