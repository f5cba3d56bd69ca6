"""Records of clients' keys on a host: merged, kept whole, read from their copy where they are torn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import edge_keys, edge_places
from tests.edge.live import record
from tests.faults.edge_matrix import by_key

ONE, TWO = "1" * 64, "2" * 64


def ask(tree: Path, do: str = "read", **keys: dict[str, Any]) -> dict[str, Any]:
    named = {digest.removeprefix("k"): each for digest, each in keys.items()}
    return edge_keys.main({"do": do, "keys": named, "tree": str(tree), "socket": str(tree / "none")})


def test_the_union_of_two_edges_is_right_whichever_missed_a_change() -> None:
    mine, theirs = {ONE: {**record("a"), "revoked": 5}}, {ONE: record("a"), TWO: record("b")}
    expected = {ONE: {**record("a"), "revoked": 5}, TWO: record("b")}
    assert edge_keys.merged([mine, theirs]) == edge_keys.merged([theirs, mine]) == expected
    later = {ONE: {**record("a"), "revoked": 9}}
    assert edge_keys.merged([mine, later]) == edge_keys.merged([later, mine]) == mine


def test_the_map_has_no_revoked_key() -> None:
    keys = {ONE: record("a", "m", "n", rate=3), TWO: {**record("b"), "revoked": 1}}
    assert edge_keys.map_text(keys).splitlines() == [
        f"{ONE}:m 1",
        f"{ONE}:n 1",
        f"{ONE} a|3|{edge_keys.UNLIMITED}|{2**40}",
    ]


def test_records_are_kept_and_a_second_write_changes_nothing(tmp_path: Path) -> None:
    assert ask(tmp_path)["keys"] == {}
    ask(tmp_path, "write", **{f"k{ONE}": record("a")})
    place = tmp_path / edge_places.OWN
    before = {path.name: path.stat().st_mtime_ns for path in place.iterdir() if path.name != edge_places.KEY_LOCK}
    answer = ask(tmp_path, "write", **{f"k{ONE}": record("a")})
    assert before == {name: (place / name).stat().st_mtime_ns for name in before}
    assert (answer["keys"], answer["current"], answer["running"]) == ({ONE: record("a")}, True, False)
    assert {oct((place / name).stat().st_mode)[-3:] for name in before} == {"600"}


@pytest.mark.parametrize("torn", ["", "{", '{"keys": {}, "sum": "0"}', "[]", None])
def test_torn_records_are_read_from_their_copy_and_said(tmp_path: Path, torn: str | None) -> None:
    ask(tmp_path, "write", **{f"k{ONE}": record("a")})
    path = tmp_path / edge_places.OWN / edge_places.KEYS
    path.unlink()
    if torn is not None:
        path.write_text(torn)
    answer = ask(tmp_path)
    assert answer["keys"] == {ONE: record("a")}
    assert by_key("keys-torn").says(answer["notes"][0])
    ask(tmp_path, "write", **{f"k{TWO}": record("b")})
    assert (ask(tmp_path)["notes"], len(json.loads(path.read_text())["keys"])) == ([], 2)


def test_where_both_are_torn_nothing_is_written(tmp_path: Path) -> None:
    ask(tmp_path, "write", **{f"k{ONE}": record("a")})
    place = tmp_path / edge_places.OWN
    for name in (edge_places.KEYS, edge_places.KEYS_BEFORE):
        (place / name).write_text("torn")
    kept = (place / edge_places.KEY_MAP).read_text()
    with pytest.raises(edge_keys.Torn) as torn:
        ask(tmp_path, "write", **{f"k{TWO}": record("b")})
    assert by_key("keys-torn-twice").says(str(torn.value))
    assert (place / edge_places.KEY_MAP).read_text() == kept


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a|2147483647|1|1"},
        {"name": "a\nb"},
        {"name": ""},
        {"models": ["m 1\nx"]},
        {"models": "m"},
        {"rate": -1},
        {"rate": "1"},
        {"expires": 2**60},
        {"revoked": None},
    ],
)
def test_what_a_map_could_not_carry_is_no_record(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        edge_keys.valid({ONE: {**record("a"), **change}})


def test_a_digest_is_64_hexadecimal_digits() -> None:
    with pytest.raises(ValueError):
        edge_keys.valid({"x": record("a")})
