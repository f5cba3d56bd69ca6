"""Real systemd hosts on this machine, with simulated GPUs: for a first look, and for the tests.

    box = Sandbox.up("demo", hosts=2)
    box.exec("node0", ["systemctl", "is-system-running"])
    box.down()

Layers: `names`, `distro`, `guest`, `passthrough`, `gpus` are pure; `base`, `network`, `machine`, `contents`
change the machine; `reach`, `faults` and `box` put them together.
"""

from muster.sandbox.box import Sandbox
from muster.sandbox.reach import Condition
from muster.sandbox.state_file import Host, State

__all__ = ["Condition", "Host", "Sandbox", "State"]
