"""Bring the pinned weights of a recipe to every host, and touch nothing that runs.

pyinfra inventories/h800-16.py deploys/stage_weights.py
pyinfra inventories/h20-8.py deploys/stage_weights.py --data _recipe=kimi-k2-thinking
"""

from pyinfra import host

from muster.deploys.stage_weights import stage_weights

stage_weights(host.data.get("_recipe", "kimi-k2-instruct"))
