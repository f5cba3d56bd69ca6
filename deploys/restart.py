"""Restart the group on the hosts of the inventory, in its order: `pyinfra INVENTORY deploys/restart.py`.

Requests in flight get `drain_seconds` to finish; a restart on purpose costs no restart budget.
"""

from muster.deploys.stop_restart_resume import restart

restart()
