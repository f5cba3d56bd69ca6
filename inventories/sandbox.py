"""The hosts of a running sandbox (`muster sandbox up`): real systemd hosts on this machine, with simulated GPUs.

MUSTER_SANDBOX names another sandbox than "muster".
"""

from pyinfra.api.exceptions import InventoryError as _InventoryError

from muster.errors import Refusal as _Refusal
from muster.sandbox.as_inventory import hosts as _hosts

try:
    hosts = _hosts()
except _Refusal as _refusal:
    # pyinfra shows its own errors as they are and any other as a traceback.
    raise _InventoryError(str(_refusal)) from _refusal
