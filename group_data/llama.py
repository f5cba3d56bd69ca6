"""The first four GPUs of a host that two groups of inventories/fleet.py share."""

recipe = "llama-3-3-70b-instruct"
group = "llama"
gpus = 4
gpu_devices = [0, 1, 2, 3]
