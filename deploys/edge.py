"""HAProxy with TLS and keys before the groups of an inventory, on the hosts of its `edge` group.

pyinfra inventories/mine.py deploys/edge.py --data _recipe=kimi-k2-instruct
pyinfra inventories/fleet.py deploys/edge.py
"""

from pyinfra import host

from muster.deploys.edge import edge

edge(host.data.get("_recipe"))
