"""Stop the group on the hosts of the inventory: `pyinfra INVENTORY deploys/stop.py [--data group=NAME]`.

Requests in flight get `drain_seconds` to finish. The group stays stopped, through a reboot too, until
deploys/resume.py, deploys/restart.py or the recipe's deploy. Plain units (`supervisor = "systemd"`) start again at
the next boot.
"""

from muster.deploys.stop_restart_resume import stop

stop()
