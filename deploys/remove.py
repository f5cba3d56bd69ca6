"""Take a group off the hosts of the inventory, or everything that muster made.

pyinfra inventories/h800-16.py deploys/remove.py                                one group; --data group=NAME of several
pyinfra inventories/h800-16.py deploys/remove.py --data _everything=true        engines, caches, tools and user as well
pyinfra inventories/h800-16.py deploys/remove.py --data _everything=true --data _weights=true      and the weights

The group is stopped first. What goes is shown before; without a terminal give `-y`.
"""

from pyinfra import host

from muster.deploys.remove import remove

remove(
    everything=host.data.get("_everything", False),
    weights=host.data.get("_weights", False),
    group=host.data.get("group"),
    recipe=host.data.get("_recipe"),
)
