"""The first of two equal groups of inventories/fleet.py."""

recipe = "kimi-k2-instruct"
group = "kimi-a"
