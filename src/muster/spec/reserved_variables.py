"""Environment variables that the plan, the guard or systemd set; a user's value would be lost or open a door."""

from __future__ import annotations

_RESERVED = {
    "VLLM_API_KEY": "api_key_file",
    "VLLM_HOST_IP": "fabric_address in the inventory",
    "VLLM_CONFIG_ROOT": "nothing: the plan writes a file there",
    "VLLM_ENGINE_READY_TIMEOUT_S": "ready_timeout",
    "HF_HOME": "hf_home",
    "CUDA_VISIBLE_DEVICES": "gpus and gpu_devices in the inventory",
    "HOME": "nothing: it is the unit's state directory",
    "RAY_ADDRESS": "ray_port",
    "RAY_AUTH_MODE": "nothing: the group's Ray asks for its token",
    "RAY_AUTH_TOKEN": "nothing: the group's Ray has a token of its own",
    "RAY_AUTH_TOKEN_PATH": "nothing: the group's Ray has a token of its own",
    "NOTIFY_SOCKET": "nothing: systemd sets it",
    "WATCHDOG_USEC": "nothing: systemd sets it",
    "CREDENTIALS_DIRECTORY": "nothing: systemd sets it",
}
_PREFIXES = ("MUSTER_", "VLLM_DP_")


def instead_of(name: str) -> str | None:
    """Return what to change instead of setting a variable; None for one that is the user's to set."""
    if name.startswith(_PREFIXES):
        return "nothing: the plan and the guard set it on each host"
    return _RESERVED.get(name)
