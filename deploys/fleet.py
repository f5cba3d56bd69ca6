"""All groups of an inventory, one after the other, then its edge: `pyinfra inventories/fleet.py deploys/fleet.py`.

`--data _parallel=N` changes N groups at once, `--data group=NAME` one of them alone.
"""

from pyinfra import host

from muster.deploys.roll import roll

roll(int(host.data.get("_parallel") or 1))
