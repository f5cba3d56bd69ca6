"""Put the plan back that was verified before: `pyinfra INVENTORY deploys/rollback.py [--data _plan=DIGEST]`.

Nothing is downloaded or built. `muster history` lists the plans that the hosts keep.
"""

from pyinfra import host

from muster.deploys.rollback import rollback

rollback(str(host.data.get("_plan", "")))
