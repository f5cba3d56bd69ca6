"""Prometheus, Alertmanager and exporters for the groups of an inventory, on the machines of its `monitor` group.

pyinfra inventories/fleet.py deploys/monitoring.py                                    all groups that name their recipe
pyinfra inventories/mine.py deploys/monitoring.py --data _recipe=kimi-k2-instruct     the one group
"""

from pyinfra import host

from muster.deploys.monitoring import monitoring

monitoring(host.data.get("_recipe"))
