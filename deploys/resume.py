"""Start the group on the hosts of the inventory again: `pyinfra INVENTORY deploys/resume.py`.

After deploys/stop.py, after *failed* (the restart budget is spent), and on a host that a fatal Xid has blocked.
"""

from muster.deploys.stop_restart_resume import resume

resume()
