"""Kimi-K2-Thinking on the hosts of the inventory: `pyinfra INVENTORY deploys/kimi_k2_thinking.py`."""

from muster.deploys.serve import serve

serve("kimi-k2-thinking")
