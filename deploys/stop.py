"""Stop the group on the hosts of the inventory: `pyinfra INVENTORY deploys/stop.py [--data group=NAME]`.

Its units stay enabled: it starts at the next boot, or with deploys/restart.py.
"""

from muster.deploys.standing import stop

stop()
