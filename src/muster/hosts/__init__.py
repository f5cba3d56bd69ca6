"""The control machine's way to hosts: over pyinfra and SSH.

programs       host programs as text for one SSH session, and the JSON that comes back     pure
session        one host program as a pyinfra command
all_hosts      host programs on every host at once
facts          what a host says of itself, as pyinfra facts
operations     pyinfra operations, each named by its outcome
uv_binary      the uv that goes to the hosts
secret_store   a group's secrets on the control machine
pyinfra_types  pyinfra's decorators and context, with types
"""
