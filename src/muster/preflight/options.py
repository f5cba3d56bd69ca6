"""How a preflight is run: waivers, pairs, NCCL, RDMA; taken from the settings of the group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.errors import Refusal, unknown
from muster.preflight.catalogue import CHECKS, WAIVABLE
from muster.preflight.needs import Rdma


@dataclass(frozen=True)
class Options:
    """Settings of the preflight.

    Args:
        waive: names of checks that stop nothing.
        pairs: measure each pair of hosts on the fabric; not done while the group runs.
        nccl: run an all-reduce across the group with the installed torch; not done while the group runs.
        port: TCP port that pairs and the all-reduce meet on.
        nccl_env: what the group's ranks are told about NCCL (`NCCL_...` of `extra_env`), for the all-reduce too.
        rdma: `auto` reports what is there, `required` fails without it, `off` does not look.
    """

    waive: tuple[str, ...] = ()
    pairs: bool = True
    nccl: bool = False
    port: int = 29650
    nccl_env: Mapping[str, str] = field(default_factory=dict)
    rdma: Rdma = "auto"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Options:
        """Read the settings `preflight_waive`, `_pairs`, `_nccl` and `_port`, `rdma` and `extra_env`.

        Raises:
            Refusal: an unknown check is waived; the nearest name is suggested.
        """
        own = cls()
        return cls(
            waive=known(settings.get("preflight_waive") or ()),
            pairs=bool(settings.get("preflight_pairs", own.pairs)),
            nccl=bool(settings.get("preflight_nccl", own.nccl)),
            port=int(settings.get("preflight_port", own.port)),
            nccl_env={k: str(v) for k, v in (settings.get("extra_env") or {}).items() if k.startswith("NCCL_")},
            rdma=settings.get("rdma", own.rdma),
        )


def known(waived: Iterable[str]) -> tuple[str, ...]:
    """Return the names of waived checks after making sure that there are such checks.

    Raises:
        Refusal: there is none of that name.
    """
    names = tuple(dict.fromkeys(waived))
    for name in names:
        if name not in CHECKS:
            raise unknown("check", name, WAIVABLE, where="preflight_waive")
        if name not in WAIVABLE:
            raise Refusal(f"preflight_waive names {name}", needed="a check that a deploy can go on without")
    return names
