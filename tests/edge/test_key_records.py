"""Records from what an operator names."""

from __future__ import annotations

from typing import Any

import pytest

from muster.edge import key_records
from muster.errors import Refusal
from muster.on_host.whole_files import text_sha256

NOW = 1_800_000_000


def add(name: str = "team", keys: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    given = {"models": (), "served": ["m", "n"], "rate": None, "concurrent": None, "days": None, "now": NOW}
    return key_records.added(keys or {}, f"sk-{name}", name, **{**given, **more})


def test_a_record_holds_a_digest_and_no_key() -> None:
    made = add(models=("n",), rate=60, days=2)
    ((digest, record),) = made.items()
    assert digest == text_sha256("sk-team")
    assert "sk-team" not in str(made)
    assert (record["models"], record["rate"], record["concurrent"]) == (["n"], 60, 0)
    assert record["expires"] == NOW + 2 * 86400
    assert add()[digest]["models"] == ["*"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"models": ("k",)}, "unknown model 'k'"),
        ({"served": []}, "no models yet"),
        ({"name": "a b"}, "cannot be the name"),
        ({"name": "x" * 65}, "cannot be the name"),
        ({"keys": add()}, "there is a key called team"),
    ],
)
def test_what_cannot_be_a_key_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(Refusal, match=words):
        add(**more)


def test_a_revoked_name_is_free_again_and_an_unknown_one_is_named() -> None:
    keys = add()
    gone = key_records.revoked(keys, "team", NOW)
    assert [record["revoked"] for record in gone.values()] == [NOW]
    assert add(keys=gone) == keys
    assert key_records.rows(gone, [], NOW) == []
    with pytest.raises(Refusal, match="did you mean 'team'"):
        key_records.revoked(keys, "taem", NOW)


def test_an_edge_whose_records_are_none_is_named() -> None:
    good = {"keys": add()}
    assert key_records.of_edges({"edge-0": good, "edge-1": {"keys": {}}}) == add()
    ((digest, record),) = add().items()
    bad = {"keys": {digest: {**record, "name": "a|1|1|1"}}}
    with pytest.raises(Refusal, match="edge-1: the record of key"):
        key_records.of_edges({"edge-0": good, "edge-1": bad})


def test_use_is_summed_over_edges() -> None:
    used = {"team": {"requests": 2, "in_flight": 1, "bytes_in": 3, "bytes_out": 4}}
    (row,) = key_records.rows(add(days=1), [used, used, {}], NOW + 86400)
    assert (row["requests"], row["bytes_out"], row["expired"]) == (4, 8, True)
