"""8 x H20: 1 host of 8 GPUs. The first host is the head. Replace names and addresses by yours.

ssh_hostname is where the control machine reaches a host; fabric_address is where its peers reach it, on
fabric_interface. The addresses below are reserved for documentation and lead nowhere.
"""

hosts = (
    [
        ("h20-0", {"ssh_hostname": "192.0.2.11", "fabric_address": "198.51.100.11"}),
    ],
    {
        "gpu": "H20",
        "gpus": 8,
        "fabric_interface": "eth1",
        "ssh_user": "root",
        "ssh_strict_host_key_checking": "yes",
    },
)
