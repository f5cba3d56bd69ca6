"""What is done to a guarded group on real GPUs, and the fault matrix's bounds for it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.gpu.guarded_host import Host


@dataclass(frozen=True)
class Fault:
    """What is done to whom, and the fault matrix's bounds in seconds: all gone, new generation started."""

    text: str
    number: signal.Signals
    victim: Callable[[Sequence[Host]], int]
    gone: float
    new: float


def _core(host: Host) -> int:
    return _title(host, "VLLM::EngineCore", 0)


def _title(host: Host, title: str, at: int) -> int:
    there = host.titled(title)
    if not there:
        raise TimeoutError(f"{host.host} has no process titled {title}")
    return there[at]


FAULTS = {
    "kill-headless": Fault("KILL the headless vLLM", signal.SIGKILL, lambda hosts: hosts[1].child(), 10, 25),
    "kill-head": Fault("KILL the head's vLLM", signal.SIGKILL, lambda hosts: hosts[0].child(), 10, 25),
    "kill-core": Fault("KILL the last host's EngineCore", signal.SIGKILL, lambda hosts: _core(hosts[-1]), 20, 40),
    "kill-worker": Fault(
        "KILL the last host's last worker", signal.SIGKILL, lambda hosts: _title(hosts[-1], "VLLM::Worker", -1), 20, 40
    ),
    "kill-api": Fault(
        "KILL an API server", signal.SIGKILL, lambda hosts: _title(hosts[0], "VLLM::APIServer", -1), 10, 25
    ),
    "stop-core": Fault("STOP the headless EngineCore", signal.SIGSTOP, lambda hosts: _core(hosts[1]), 150, 170),
}
