"""All groups of an inventory, one after the other, then its edge: `pyinfra inventories/fleet.py deploys/fleet.py`.

`--data _parallel=N` changes N groups at once, `--data group=NAME` one of them alone. `--data _gate=BASELINE` measures
each changed group against kept runs of ./ledger before it is back, and `--data _gate_eval=BASELINE` asks it GSM8K.
"""

from pyinfra import host

from muster.bench.roll_gate import gates
from muster.deploys.roll import roll

roll(int(host.data.get("_parallel") or 1), gates=gates(host.data.get("_gate"), host.data.get("_gate_eval")))
