"""Bring the pinned weights of a recipe to every host, and touch nothing that runs.

pyinfra inventories/h800-16.py deploys/stage_weights.py --data _recipe=kimi-k2-instruct --data weights_source=hub
"""

from pyinfra import host

from muster.deploys.stage_weights import stage_only

stage_only(host.data.get("_recipe"))
