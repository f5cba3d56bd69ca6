"""The second of two equal groups of inventories/fleet.py: one serves while the other is changed."""

recipe = "kimi-k2-instruct"
group = "kimi-b"
