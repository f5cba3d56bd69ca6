"""Real systemd hosts on this machine, with simulated GPUs: for a first look, and for the tests.

box = Sandbox.up("demo", hosts=2)
box.exec("node0", ["systemctl", "is-system-running"])
box.down()

box                                        up and down
reach, ask, faults                         commands on hosts, a question to each rank, what tests do to hosts
root_image, distro, passthrough            the root file system, and how packages get there
nspawn_host, network, limits, requirements one host; bridge and cables; what the machine must have
contents, guest, simulated_gpus, tiny_model, vllm_wheel   what a host is filled with
state_file, names, shell                   what is remembered, what it is called, the machine's own tools
as_inventory, serving_settings             the sandbox as an inventory, and its settings
edge_certificate                           its own authority, for an edge
tools/                                     programs of the hosts: nvidia-smi and its neighbours
"""

from muster.sandbox.box import Sandbox
from muster.sandbox.reach import Condition
from muster.sandbox.state_file import Host, State

__all__ = ["Condition", "Host", "Sandbox", "State"]
