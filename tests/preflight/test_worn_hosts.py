"""What no simulated GPU can show: each check of the host, its network and its engine fails on a real host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from muster.preflight.catalogue import CHECKS
from muster.sandbox import simulated_gpus, tiny_model
from muster.sandbox.box import Sandbox
from muster.sandbox.names import INTERFACE
from tests import planted_python, standin

from . import boxes, test_on_hosts

pytestmark = pytest.mark.sandbox
BOTH = ("node0", "node1")
HUB = "/var/lib/muster/hf/hub/models--moonshotai--Kimi-K2-Instruct/refs"


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """Two hosts of two GPUs with an installed engine."""
    made = Sandbox.up("preflight-worn", 2, gpu="H200", gpus=2)
    try:
        for host in BOTH:
            standin.place(made.tree(host))
        yield made
    finally:
        made.down()


def inventory(path: Path, **settings: Any) -> str:
    """Write an inventory of the sandbox with other settings; group data stays the sandbox's."""
    file = path / "sandbox.py"
    file.write_text(
        "from muster.sandbox.as_inventory import hosts as _hosts\nhosts = _hosts()\n"
        f"for _host in hosts:\n    _host[1].update({settings!r})\n"
    )
    return str(file)


def seen(run: boxes.Run, **levels: str) -> None:
    """Assert that checks (with `__` for the dot) came out so on node1, with words that help."""
    for name, level in levels.items():
        check = name.replace("__", ".")
        (verdict,) = [v for v in run.data["verdicts"] if (v["check"], v["host"]) == (check, "node1")]
        assert (check, verdict["level"]) == (check, level)
        assert verdict["found"]
        assert verdict["needed"]
        assert verdict["fix"]


def python(box: Sandbox, prelude: str = "", within: str = "") -> AbstractContextManager[None]:
    """Let node1's Python begin with some lines, or run within another command: what a host tells of itself."""
    return planted_python.planted(box, "node1", planted_python.beginning_with(prelude, within))


@contextmanager
def bound(box: Sandbox, text: str, path: str) -> Iterator[None]:
    """Let a file of node1's kernel say something else."""
    box.exec("node1", ["sh", "-c", f"cat > /root/bound && mount --bind /root/bound {path}"], stdin=text)
    try:
        yield
    finally:
        box.exec("node1", ["umount", path])


@contextmanager
def rdma(box: Sandbox, state: str, kind: str) -> Iterator[None]:
    """Give node1 one RoCE port."""
    files = {
        "state": state, "phys_state": "5: LinkUp", "link_layer": "Ethernet", "rate": "400 Gb/sec (4X NDR)",
        "gids/3": "fe80:0000:0000:0000:0000:0000:0000:0001", "gid_attrs/types/3": kind,
    }  # fmt: skip
    port = box.tree("node1") / "root/class/infiniband/mlx5_0/ports/1"
    for name, text in files.items():
        (port / name).parent.mkdir(parents=True, exist_ok=True)
        (port / name).write_text(text + "\n")
    box.exec("node1", ["mount", "--bind", "/root/class", "/sys/class"])
    try:
        yield
    finally:
        box.exec("node1", ["umount", "/sys/class"])


def test_an_old_host_in_everything(box: Sandbox) -> None:
    old = 'import os\nos.confstr = lambda name: "glibc 2.17"'
    systemctl = box.tree("node1") / "usr/local/bin/systemctl"
    systemctl.write_text('#!/bin/sh\n[ "$*" = --version ] && echo "systemd 245 (245.4)" || exec /bin/systemctl "$@"\n')
    systemctl.chmod(0o755)
    try:
        with ExitStack() as stack:
            stack.enter_context(python(box, old, within="setarch i686 --uname-2.6"))
            stack.enter_context(bound(box, "32768\n", "/proc/sys/kernel/pid_max"))
            stack.enter_context(rdma(box, "4: ACTIVE", "IB/RoCE v1"))
            run = boxes.check(box, "--data", "rdma=auto")
    finally:
        systemctl.unlink()
    seen(run, host__glibc="fail", host__machine="fail", host__systemd="fail", host__limits="warn")
    seen(run, rdma__gid="warn", rdma__gpudirect="warn", parity__kernel="warn")


def test_little_memory(box: Sandbox) -> None:
    with bound(box, "MemTotal: 4194304 kB\n", "/proc/meminfo"):
        seen(boxes.check(box), host__memory="warn")


def test_rdma_that_is_required_and_down(box: Sandbox) -> None:
    with rdma(box, "1: DOWN", "RoCE v2"):
        run = boxes.muster(box, "preflight", "--no-pairs", "--format", "json", "--data", "rdma=required")
    seen(run, rdma__link="fail")
    assert "no RDMA device" in run.found("rdma.link", "node0")


def test_filters_that_the_kernel_does_not_enforce(box: Sandbox) -> None:
    old = "import os\n_there = os.path.exists\nos.path.exists = lambda p: 'cgroup.contr' not in str(p) and _there(p)"
    tool = "/usr/sbin/nft"
    with ExitStack() as stack:
        stack.enter_context(python(box, old))
        stack.enter_context(bound(box, "1024\t60999\n", "/proc/sys/net/ipv4/ip_local_port_range"))
        stack.enter_context(boxes.inside(box, "node1", ["mv", tool, f"{tool}.away"], ["mv", f"{tool}.away", tool]))
        run = boxes.check(box, "kimi-k2-instruct")
    seen(run, host__nftables="fail", host__ip_filter="warn", host__port_range="warn")
    assert run.levels("host.nftables")["node0"] == "ok"


def test_a_firewall_that_nobody_has_tried(box: Sandbox) -> None:
    rules = "table inet site { chain input { type filter hook input priority 0; tcp dport 9 drop; }; }"
    with boxes.inside(box, "node1", ["nft", rules], ["nft", "delete table inet site"]):
        run = boxes.check(box)
    seen(run, host__firewall="warn")
    assert "tcp dport 9 drop" in run.found("host.firewall", "node1")


def test_a_login_that_is_not_root(box: Sandbox) -> None:
    with python(box, within="setpriv --reuid=65534 --clear-groups"):
        seen(boxes.check(box), host__user="fail")


def test_a_fabric_interface_that_is_down(box: Sandbox, tmp_path: Path) -> None:
    up = "ip link add br9 type bridge && ip address add 198.51.100.7/24 dev br9"
    change = "fabric_address='198.51.100.7', fabric_interface='br9'"
    with boxes.inside(box, "node1", ["sh", "-c", up], ["ip", "link", "del", "br9"]):
        run = boxes.check(box, inventory=test_on_hosts.inventory(tmp_path, change))
    seen(run, fabric__link="fail")


def test_a_slow_and_narrow_way(box: Sandbox) -> None:
    slow = (
        "import socket, time\n_send = socket.socket.sendall\n"
        "socket.socket.sendall = lambda self, data: (time.sleep(0.003), _send(self, data))[1]"
    )
    narrow = ["tc", "qdisc", "add", "dev", INTERFACE, "root", "tbf", "rate", "300mbit", "burst", "64kb",
              "latency", "50ms"]  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(python(box, slow))
        stack.enter_context(boxes.network(box, "node0", narrow, ["tc", "qdisc", "del", "dev", INTERFACE, "root"]))
        run = boxes.muster(box, "preflight", "--format", "json")
    seen(run, fabric__round_trip="warn", fabric__throughput="warn")
    assert any("slowest pair: node0 to node1, 0." in note for note in run.data["notes"])


def test_a_model_that_does_not_fit_what_is_there(box: Sandbox, tmp_path: Path) -> None:
    # 98 GiB a GPU: it fits an H200, and not one that shows 97871 MiB.
    wide = {**tiny_model.SHAPE, "hidden_size": 8192, "vocab_size": 3_200_000}
    fault = simulated_gpus.with_value(box.gpus("node1"), 0, "fb_memory_usage/total", "97871 MiB")
    with boxes.gpus(box, "node1", fault):
        run = boxes.check(
            box, "kimi-k2-instruct", inventory=inventory(tmp_path, model_shape=wide, expert_parallel=False)
        )
    seen(run, memory__fit="fail", gpu__memory="fail")
    assert run.levels("memory.fit")["node0"] == "ok"


def test_a_build_that_the_driver_does_not_run(box: Sandbox) -> None:
    with boxes.gpus(box, "node1", simulated_gpus.driver(box.gpus("node1"), "535.183.01")):
        run = boxes.check(box, "--data", "torch_backend=cu130")
    seen(run, driver__build="fail", parity__driver="warn")


def test_an_engine_of_another_build_that_does_not_import(box: Sandbox, tmp_path: Path) -> None:
    own = inventory(tmp_path, engine_path=standin.PATH)
    assert boxes.check(box, "kimi-k2-instruct", inventory=own).levels("engine.import") == dict.fromkeys(BOTH, "ok")
    standin.place(box.tree("node1"), cuda="none")
    (site,) = (box.tree("node1") / standin.PATH.lstrip("/")).glob("lib/python3*/site-packages")
    (site / "torch/__init__.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')\n")
    try:
        run = boxes.check(box, "kimi-k2-instruct", inventory=own)
    finally:
        standin.place(box.tree("node1"))
    seen(run, engine__cuda="fail", engine__import="fail")
    assert "libcudart.so.13" in run.found("engine.import", "node1")


def test_hosts_that_were_installed_differently(box: Sandbox, tmp_path: Path) -> None:
    numbers = {"node0": ("0.33.0", "1" * 8), "node1": ("0.33.1", "2" * 8)}
    for host, (version, digest) in numbers.items():
        standin.place(box.tree(host), version=version)
        tree = box.tree(host)
        (site,) = (tree / standin.PATH.lstrip("/")).glob("lib/python3*/site-packages")
        (site / "torch-2.13.0.dist-info").rename(site / f"torch-2.13.{version[-1]}.dist-info")
        for name in ("nvidia_nccl_cu13", "ray"):
            (site / f"{name}-{version}.dist-info").mkdir()
        (tree / standin.PATH.lstrip("/") / "pyvenv.cfg").write_text(f"version = 3.12.{version[-1]}\n")
        for path, text in (
            (f"{HUB}/main", digest[0] * 40),
            ("/etc/systemd/system/muster-kimi-k2-instruct.service", f"[Service]\nEnvironment=MUSTER_DIGEST={digest}\n"),
        ):
            (tree / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (tree / path.lstrip("/")).write_text(text)
    settings = {"engine_path": standin.PATH, "model": "moonshotai/Kimi-K2-Instruct", "offline": True}
    own = inventory(tmp_path, **settings, revision="1" * 40)
    run = boxes.check(box, "kimi-k2-instruct", inventory=own)
    seen(run, parity__vllm="warn", parity__torch="warn", parity__nccl="warn", parity__ray="warn")
    seen(run, parity__python="warn", parity__revision="warn", parity__config="warn")
    drift = boxes.muster(box, "drift", "kimi-k2-instruct", "--format", "json", inventory=own)
    assert drift.status == 1
    seen(drift, drift__files="warn", drift__versions="warn", drift__revision="warn")
    assert drift.levels("drift.versions")["node0"] == "ok"


def test_no_check_is_left_out() -> None:
    shown = {check for _, checks in test_on_hosts.GPU_FAULTS.values() for check, level, _ in checks if level != "ok"}
    here, there = (Path(file).read_text(encoding="utf-8") for file in (__file__, test_on_hosts.__file__))
    shown |= {".".join(match) for match in re.findall(r"(\w+?)__(\w+)=\"(?:warn|fail)\"", here)}
    shown |= {name for name in CHECKS if f'levels("{name}")' in there or f'found("{name}"' in there}
    # tests/deploys (a group's own files: test_cannot_return.py) and tests/preflight/test_on_sixteen.py; NCCL needs GPUs
    # (tests/gpu). An old Ray is judged from its files (tests/preflight/checks/test_local.py).
    elsewhere = {name for name in CHECKS if name.startswith(("deploy.", "group.", "nccl."))}
    elsewhere |= {"host.reached", "engine.ray"}
    assert set(CHECKS) - shown == elsewhere
