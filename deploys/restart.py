"""Restart the group on the hosts of the inventory, in its order: `pyinfra INVENTORY deploys/restart.py`."""

from muster.deploys.standing import restart

restart()
