"""What a transient unit of muster's may do: the options of `systemd-run` that confine probes and measuring tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Device nodes a GPU engine opens. char-* resolve through /proc/devices: the modules must be loaded first.
DEVICES = (
    "char-nvidia",
    "char-nvidia-uvm",
    "char-nvidia-caps",
    "char-nvidia-nvswitch",
    "char-nvidiactl",
    "char-infiniband_verbs",
    "/dev/infiniband/rdma_cm",
    "/dev/gdrdrv",
)
# As the engine's own unit: MemoryDenyWriteExecute stays off, since torch compiles at run time.
CONFINED = (
    "NoNewPrivileges=yes",
    "UMask=0077",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateMounts=yes",
    "ProtectProc=invisible",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictNamespaces=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "RemoveIPC=yes",
    "KeyringMode=private",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
    "SystemCallErrorNumber=EPERM",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "DevicePolicy=closed",
    "LimitNOFILE=1048576",
    "LimitCORE=0",
    "TasksMax=16384",
)


def systemd_run(
    unit: str, user: str, properties: Sequence[str], env: Mapping[str, str], *, devices: bool = False
) -> list[str]:
    """Return the beginning of a `systemd-run` command line; the command itself follows.

    Args:
        unit: its name.
        user: its user, which is made for the unit's life where the host has none of that name.
        properties: besides those that confine it.
        env: its whole environment; no secrets, since `systemctl show` shows it to all.
        devices: whether it may open GPUs and RDMA devices.
    """
    allowed = [f"DeviceAllow={device} rw" for device in DEVICES] if devices else []
    options = ["DynamicUser=yes", f"User={user}", *CONFINED, *allowed, *properties]
    words = ["systemd-run", "--quiet", "--unit=" + unit, *(f"--property={option}" for option in options)]
    return [*words, *(f"--setenv={name}={value}" for name, value in env.items()), "--"]
