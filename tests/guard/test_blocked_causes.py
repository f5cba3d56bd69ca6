"""Every sentence with which a guard refuses to start has a cause; each is made here by the code that makes it."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from muster.guard import config, start_checks
from muster.guard.blocked_causes import CAUSES, cause_of
from muster.guard.children import Children, Journal
from muster.guard.control_port import ControlPort
from muster.guard.group_settings import Checks, Child, Port
from muster.guard.kernel_log import XidLog
from muster.guard.member_core import MemberState

from .test_config import DATA

CONFIG = config.parse(json.dumps({**DATA, "host": "h0"}))
XID = "[   60.0] host kernel: NVRM: Xid (PCI:0000:00:06): 79, pid=1, GPU has fallen off the bus."
SXID = "[   61.0] host kernel: nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"


def of_gpus(checks: Checks) -> str:
    return asyncio.run(start_checks.gpus(checks, 5)).problem


@pytest.mark.parametrize("line", [XID, SXID])
def test_a_fatal_error_of_the_driver(line: str) -> None:
    log = XidLog((), None, lambda _: None)
    log.feed(line)
    assert cause_of(log.reason()) == "xid"


def test_disk_and_engine(tmp_path: Path) -> None:
    assert cause_of(start_checks.disk(Checks(disk={str(tmp_path): 2**70}))) == "disk"
    assert cause_of(start_checks.disk(Checks(disk={str(tmp_path / "gone"): 1}))) == "disk"
    assert cause_of(start_checks.paths(Checks(paths=(str(tmp_path / "vllm"),)))) == "engine"
    children = Children([(Child("vllm"), ("/no/vllm",))], {}, Journal(), lambda _: None, lambda _: None)
    assert cause_of(children.executable_missing()) == "engine"


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cause_of(start_checks.ports((Port("127.0.0.1", port),))) == "port"
        nothing = (lambda _: None, lambda *_: {}, lambda *_: (200, "", ""))
        control = ControlPort("g", b"k", frozenset(), *nothing, 5.0)
        assert cause_of(control.problem) == "port"

        async def listen() -> None:
            task = asyncio.ensure_future(control.listen("127.0.0.1", port))
            for _ in range(100):
                await asyncio.sleep(0.02)
                if "cannot be bound" in control.problem:
                    break
            task.cancel()

        asyncio.run(listen())
        assert "cannot be bound" in control.problem
        assert cause_of(control.problem) == "port"


def test_gpus_and_what_holds_them() -> None:
    two = ("printf", "0, GPU-0, 1:0, Completed, Success\n1, GPU-1, 2:0, In Progress, N/A\n")
    assert (
        cause_of(of_gpus(Checks(gpus=1, gpu_command=("nvidia-smi", "--no-such-flag"), apps_command=("true",)))) == "gpu"
    )
    assert cause_of(of_gpus(Checks(gpus=4, gpu_command=two, apps_command=("true",)))) == "gpu"
    assert cause_of(of_gpus(Checks(gpus=2, gpu_command=two, apps_command=("true",)))) == "gpu"
    apps = ("printf", "12, python, 4 MiB, GPU-0\n")
    assert cause_of(of_gpus(Checks(gpus=1, gpu_command=two, apps_command=apps))) == "processes"


def test_plan_operator_and_what_is_not_known_yet() -> None:
    assert cause_of(start_checks.stale_unit("0123", CONFIG)) == "plan"
    assert cause_of("stopped by an operator; the head h0 has not heard of it yet") == "operator"
    state = MemberState(CONFIG.group, replace(CONFIG.settings), "h0", "i")
    assert cause_of(state.blocked) == "unchecked"


def test_a_hostile_sentence_makes_no_new_word() -> None:
    assert cause_of("") == ""
    for text in ('x"} 1\nevil 2', "fatal" * 400, "Xid", "\0"):
        assert cause_of(text) in CAUSES
