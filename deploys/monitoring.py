"""Prometheus, Alertmanager and exporters for the group on an inventory, on the machines of its `monitor` group.

pyinfra inventories/mine.py deploys/monitoring.py --data _recipe=kimi-k2-instruct
"""

from pyinfra import host

from muster.deploys.monitoring import monitoring

monitoring(host.data.get("_recipe"))
