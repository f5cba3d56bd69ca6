"""Environment variables that the plan, the guard or systemd set; a user's value would be lost or open a door."""

from __future__ import annotations

from collections.abc import Iterable

from muster.errors import Refusal

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


def check(names: Iterable[str], *, where: str, before: str = "") -> None:
    """Refuse variables that are not the user's to set.

    Args:
        names: of the variables.
        where: which setting or file sets them, for messages.
        before: what to do before changing what stands in their place.

    Raises:
        Refusal: naming the variable, and what to change instead.
    """
    for name in names:
        instead = instead_of(name)
        if instead is not None:
            raise Refusal(
                f"{where} sets {name}",
                needed="only variables that the plan does not decide by itself",
                fix=f"{before}change {instead}",
            )
