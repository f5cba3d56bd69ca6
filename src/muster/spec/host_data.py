"""What pyinfra merged for each host -> the settings of their group: one value for all, what is nobody's left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from muster.errors import Refusal, shown, unknown
from muster.spec import plain_secrets
from muster.spec.host import PER_HOST_ENV
from muster.spec.settings import GROUPS, NAMES, Settings
from muster.spec.validation import refusal_of

# Host data of pyinfra and its connectors, and what an inventory says of one host.
HOST_KEYS = frozenset({"gpu", "gpus", "gpu_devices", "fabric_address", "fabric_interface"})
_FOREIGN_PREFIXES = ("_", "x_", "ssh_", "docker_", "podman_", "winrm_", "terraform_", "vagrant_", "fake_")


def is_foreign(key: str) -> bool:
    """Whether a key of host data is pyinfra's or the user's own, and none of muster's business."""
    return key in HOST_KEYS or key.startswith(_FOREIGN_PREFIXES)


def settings_of(data: Mapping[str, Any], *, where: str = "settings") -> Settings:
    """Build settings from host data.

    Args:
        data: names and values as pyinfra merged them (`--data` over host over groups over all).
        where: inventory name, for messages.

    Raises:
        Refusal: an unknown name (nearest suggested) or a value out of range.
    """
    mine = {key: value for key, value in data.items() if not is_foreign(key)}
    for key in mine:
        if key not in NAMES:
            raise unknown("setting", key, NAMES, where=where)
    try:
        return Settings.model_validate(mine)
    except ValidationError as error:
        raise refusal_of(error, Settings, where=where, what="setting", unwritten=GROUPS) from None


def own_env(
    per_host: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Mapping[str, Any]], dict[str, dict[str, str]]]:
    """Take out of `extra_env` what may differ from host to host, and does.

    Args:
        per_host: host -> data as pyinfra merged them.

    Returns:
        The data without it, and host -> its own values, of the names in PER_HOST_ENV.
    """
    given = {host: data.get("extra_env") or {} for host, data in per_host.items()}
    if not all(isinstance(env, Mapping) for env in given.values()):
        return dict(per_host), {}  # refused as any other value of a wrong type
    values = [[env.get(name) for env in given.values()] for name in PER_HOST_ENV]
    differ = {name for name, row in zip(PER_HOST_ENV, values, strict=True) if any(value != row[0] for value in row)}
    if not differ:
        return dict(per_host), {}
    common: dict[str, Mapping[str, Any]] = {
        host: {**data, "extra_env": {name: value for name, value in given[host].items() if name not in differ}}
        for host, data in per_host.items()
    }
    return common, {host: {name: env[name] for name in env if name in differ} for host, env in given.items()}


def same_on_all(per_host: Mapping[str, Mapping[str, Any]], *, where: str) -> dict[str, Any]:
    """Return the settings that all hosts share, since a group has one configuration.

    Raises:
        Refusal: a setting that differs between hosts, with both values.
    """
    first_name, shared = "", dict[str, Any]()
    for name, data in per_host.items():
        mine = {key: value for key, value in data.items() if not is_foreign(key)}
        if not first_name:
            first_name, shared = name, mine
            continue
        for key in _keys(shared, mine):
            if shared.get(key) != mine.get(key):
                one, other = (plain_secrets.literal_of(key, values.get(key)) for values in (shared, mine))
                raise Refusal(
                    f"{where}: setting '{shown(key)}' is {one} on {shown(first_name)} but {other} on {shown(name)}",
                    needed="one value for the whole group: its ranks must run the same configuration",
                    fix=f"set '{key}' in group_data, not on a host",
                )
    return shared


def _keys(*mappings: Mapping[str, Any]) -> Iterable[str]:
    return sorted(set().union(*mappings))
