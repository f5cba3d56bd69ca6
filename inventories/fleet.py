"""A fleet: two groups of Kimi-K2 on two hosts each, and two smaller models on a fifth. Replace names and addresses.

A group whose data name a recipe is deployed as one cluster, its first host the head: group_data/kimi_a.py and its like
hold that, and whatever differs from group_data/all.py. The addresses below are reserved for documentation.
"""

_hosts = {
    "gpu": "H200",
    "gpus": 8,
    "fabric_interface": "eth1",
    "ssh_user": "root",
    "ssh_strict_host_key_checking": "yes",
}

kimi_a = (
    [
        ("gpu-0", {"ssh_hostname": "192.0.2.11", "fabric_address": "198.51.100.11"}),
        ("gpu-1", {"ssh_hostname": "192.0.2.12", "fabric_address": "198.51.100.12"}),
    ],
    dict(_hosts),
)
kimi_b = (
    [
        ("gpu-2", {"ssh_hostname": "192.0.2.13", "fabric_address": "198.51.100.13"}),
        ("gpu-3", {"ssh_hostname": "192.0.2.14", "fabric_address": "198.51.100.14"}),
    ],
    dict(_hosts),
)
# One host with two groups: their GPUs and ports are divided in group_data/llama.py and gpt.py.
llama = ([("gpu-4", {"ssh_hostname": "192.0.2.15", "fabric_address": "198.51.100.15"})], dict(_hosts))
gpt = (["gpu-4"], dict(_hosts))
