"""Records of clients' keys at the edge, made from what an operator names. Pure; `on_host.edge_keys` keeps them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from muster.errors import Refusal, unknown
from muster.on_host import edge_keys
from muster.on_host.whole_files import text_sha256

ANY_MODEL = "*"
DAY = 86400


def of_edges(answers: Mapping[str, Mapping[str, Any]]) -> edge_keys.Keys:
    """Return the records of all edges, merged.

    Args:
        answers: edge -> what its `edge_keys` says.

    Raises:
        Refusal: an edge whose records are none.
    """
    for host, answer in answers.items():
        try:
            edge_keys.valid(answer["keys"])
        except ValueError as error:
            raise Refusal(
                f"{host}: {error}",
                needed="records that muster key has written: they would go to every edge",
                fix="look at this host; without its keys.json and keys.good.json it gets those of the others",
            ) from None
    return edge_keys.merged(answer["keys"] for answer in answers.values())


def added(
    keys: edge_keys.Keys,
    key: str,
    name: str,
    *,
    models: Sequence[str],
    served: Collection[str],
    rate: int | None,
    concurrent: int | None,
    days: int | None,
    now: int,
) -> edge_keys.Keys:
    """Return the record of a new key, by the key's digest.

    Args:
        keys: the records that are there.
        key: the key itself, which is in no record.
        name: of the client.
        models: that it may use; empty for all.
        served: models of the edge.
        rate: requests a minute; None for no limit.
        concurrent: requests at once; None for no limit.
        days: until it ends; None for never.
        now: in seconds since 1970.

    Raises:
        Refusal: a name that is taken or cannot be one, a model that nobody serves.
    """
    if not served:
        raise Refusal("the edge has no models yet", needed="an edge that is deployed", fix="deploys/edge.py first")
    for model in models:
        if model not in served:
            raise unknown("model", model, served, where="the edge")
    if edge_keys.keys_of(keys, name):
        raise Refusal(f"there is a key called {name}", needed="a name of its own for each key", fix="revoke it first")
    record: dict[str, Any] = {
        "name": name,
        "models": sorted({*models}) or [ANY_MODEL],
        "rate": rate or 0,
        "concurrent": concurrent or 0,
        "expires": now + days * DAY if days is not None else 0,
        "made": now,
        "revoked": 0,
    }
    try:
        return edge_keys.valid({text_sha256(key): record})
    except ValueError:
        raise Refusal(
            f"'{name}' cannot be the name of a key", needed="letters, digits and ._@-, at most 64, first no sign"
        ) from None


def revoked(keys: edge_keys.Keys, name: str, now: int) -> edge_keys.Keys:
    """Return the records of a name's keys, revoked.

    Raises:
        Refusal: there is none of that name.
    """
    digests = edge_keys.keys_of(keys, name)
    if not digests:
        names = {str(record["name"]) for record in keys.values() if not record["revoked"]}
        raise unknown("key", name, names, where="the edge")
    return {digest: {**keys[digest], "revoked": now} for digest in digests}


def rows(keys: edge_keys.Keys, used: Sequence[Mapping[str, Mapping[str, int]]], now: int) -> list[dict[str, Any]]:
    """Return what is listed of each key that is not revoked, by name.

    Args:
        keys: records.
        used: for each edge, name -> what the key has used there.
        now: in seconds since 1970.
    """

    def total(name: str, what: str) -> int:
        return sum(each[name][what] for each in used if name in each)

    return [
        {
            **{field: record[field] for field in ("name", "models", "rate", "concurrent", "expires")},
            "expired": 0 < record["expires"] <= now,
            **{what: total(record["name"], what) for what in ("requests", "in_flight", "bytes_in", "bytes_out")},
        }
        for record in sorted(keys.values(), key=lambda each: str(each["name"]))
        if not record["revoked"]
    ]
