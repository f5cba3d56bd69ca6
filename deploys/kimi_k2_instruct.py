"""Kimi-K2-Instruct on the hosts of the inventory: `pyinfra INVENTORY deploys/kimi_k2_instruct.py`."""

from muster.deploys.serve import serve

serve("kimi-k2-instruct")
