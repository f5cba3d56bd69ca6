"""From one host to the others, over loopback: whole, resumed, mended, and what happens when a host lies or dies."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import transfer_room, transfer_store, weights_on_disk
from muster.on_host.transfer_progress import RESERVE
from tests.on_host.transfer_runs import (
    MIB,
    SMALL,
    AnsweredRuns,
    Run,
    all_of,
    homes,
    model,
    pinned,
    requests,
    same,
    slowed,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return model(tmp_path / "origin", SMALL)


def good(ended: list[tuple[int, str, str]]) -> list[str]:
    assert [status for status, _, _ in ended] == [0] * len(ended), [error for _, _, error in ended]
    return [out for _, out, _ in ended]


def probe(home: Path, origin: Path) -> dict[str, Any]:
    return weights_on_disk.probe(pinned(home, origin))


def test_every_host_gets_every_file_and_none_keeps_scraps(tmp_path: Path, origin: Path) -> None:
    places = homes(tmp_path, 4)
    good(all_of(requests(places, origin)))
    for place in places:
        assert same(origin, place)
        assert probe(place, origin)["complete"]
        assert not [path for path in place.rglob("*") if transfer_store.unfinished(path.name)]
    manifests = {(place / ".muster-manifest.json").read_text() for place in places}
    assert len(manifests) == 1


def test_a_second_run_finds_nothing_to_do(tmp_path: Path, origin: Path) -> None:
    places = homes(tmp_path, 2)
    good(all_of(requests(places, origin)))
    before = {path: path.stat().st_ino for path in places[1].rglob("*.safetensors")}
    outs = good(all_of(requests(places, origin)))
    assert "fetching" not in outs[0]
    assert {path: path.stat().st_ino for path in places[1].rglob("*.safetensors")} == before


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "add"])
@pytest.mark.parametrize("where", [0, 2])
def test_what_is_wrong_is_mended_alone(tmp_path: Path, origin: Path, harm: str, where: int) -> None:
    places = homes(tmp_path, 3)
    good(all_of(requests(places, origin)))
    victim = places[where] / "a.safetensors"
    if harm == "flip":
        data = bytearray(victim.read_bytes())
        data[5 * MIB] ^= 1
        victim.write_bytes(data)
    elif harm == "truncate":
        os.truncate(victim, 6 * MIB)
    elif harm == "remove":
        victim.unlink()
    else:
        (places[where] / "stale.safetensors").write_bytes(b"old")
    untouched = (places[where] / "b.safetensors").stat().st_ino
    assert not probe(places[where], origin)["complete"]
    outs = good(all_of(requests(places, origin)))
    assert same(origin, places[where])
    assert probe(places[where], origin)["complete"]
    assert (places[where] / "b.safetensors").stat().st_ino == untouched
    if harm == "add":
        assert "stale.safetensors is not in the manifest" in outs[where]


def test_a_silent_flip_is_found_by_reading_all(tmp_path: Path, origin: Path) -> None:
    (place,) = homes(tmp_path, 1)
    good(all_of(requests([place], origin)))
    victim = place / "b.safetensors"
    times = victim.stat()
    with victim.open("r+b") as handle:
        handle.seek(MIB)
        handle.write(b"\0")
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert probe(place, origin)["complete"]  # that is what a note can know
    answer = weights_on_disk.verify(pinned(place, origin))
    assert list(answer["wrong"]) == ["b.safetensors"]
    assert not probe(place, origin)["complete"]
    good(all_of(requests([place], origin)))
    assert same(origin, place)


def test_the_first_chunks_of_an_interrupted_file_are_not_fetched_again(tmp_path: Path, origin: Path) -> None:
    places = homes(tmp_path, 2)
    good(all_of(requests(places[:1], origin)))
    places[1].mkdir(parents=True)
    whole = (origin / "a.safetensors").read_bytes()
    part = places[1] / "a.safetensors.muster-part"
    part.write_bytes(whole[: 8 * MIB])
    asked = requests(places, origin)
    runs = AnsweredRuns(asked)
    good(runs.ended)
    assert same(origin, places[1])
    # In chunks of 256 KiB: 1 MiB of a and 5 of b, and the two small files.
    assert runs.answer(1)["chunks_from"] == {"h0": 4 + 20 + 2}


def test_a_host_that_serves_wrong_bytes_is_named_and_done_without(tmp_path: Path, origin: Path) -> None:
    places = homes(tmp_path, 3)
    good(all_of(requests(places[:2], origin)))
    liar = places[1] / "a.safetensors"
    times = liar.stat()
    with liar.open("r+b") as handle:
        for chunk in range(36):  # every one, so that whichever is asked of it is wrong
            handle.seek(chunk * 256 * 1024)
            handle.write(b"tampered")
    os.utime(liar, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert probe(places[1], origin)["complete"]  # it believes what it serves
    # For a while the seed is so slow that the newcomer has to ask the other.
    asked = requests(places, origin)
    seed = asked[2]["peers"]["h0"]
    with slowed(seed["address"], seed["port"], caller=asked[2]["address"], seconds=8.0) as port:
        seed["port"] = port
        runs = AnsweredRuns(asked)
    assert same(origin, places[2])
    wrong = runs.answer(2)["bad_from"]
    assert set(wrong) == {"h1"}
    assert wrong["h1"] >= 3
    assert "h1 served bad data for a.safetensors" in runs.ended[2][2]
    assert "nothing more is requested from h1 in this run" in runs.ended[2][2]
    assert not probe(places[1], origin)["complete"]  # its note is gone: the next run mends it
    good(all_of(requests(places, origin)))
    assert same(origin, places[1])


def test_a_seed_that_lies_is_named_when_nobody_else_has_the_file(tmp_path: Path, origin: Path) -> None:
    places = homes(tmp_path, 2)
    good(all_of(requests(places[:1], origin)))
    liar = places[0] / "a.safetensors"
    times = liar.stat()
    with liar.open("r+b") as handle:
        handle.write(b"tampered")
    os.utime(liar, ns=(times.st_atime_ns, times.st_mtime_ns))
    ended = all_of(requests(places, origin))
    assert ended[1][0] != 0
    assert "h0 served bad data for a.safetensors at offset 0" in ended[1][1]
    assert "h0, the seed, serves bad data" in ended[1][2]
    assert not (places[1] / "a.safetensors").exists()
    good(all_of(requests(places, origin)))
    assert same(origin, places[1])
    assert same(origin, places[0])


def test_strangers_get_nothing(tmp_path: Path, origin: Path) -> None:
    places = homes(tmp_path, 2)
    asked = requests(places, origin)
    asked[1]["peers"]["h0"]["key"] = {"text": "00" * 32}
    ended = all_of(asked)
    assert ended[1][0] != 0
    assert "h0, the seed, has been silent" in ended[1][2]
    assert not [path for path in places[1].rglob("*.safetensors*") if path.stat().st_blocks]


def test_every_host_learns_why_a_source_fails(tmp_path: Path, origin: Path) -> None:
    places = homes(tmp_path, 2)
    asked = requests(places, origin)
    asked[0]["source"] = {"kind": "none"}
    ended = all_of(asked)
    assert "there is no source" in ended[0][2]
    assert "h0, the seed: " in ended[1][2]
    assert "there is no source" in ended[1][2]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_host_goes_on_where_it_was(tmp_path: Path, victim: int) -> None:
    origin = model(tmp_path / "origin", {f"{n}.safetensors": 24 * MIB for n in range(4)})
    places = homes(tmp_path, 3)
    runs = [Run(request) for request in requests(places, origin)]
    part = places[1]
    limit = time.monotonic() + 30
    while time.monotonic() < limit and not list(part.glob("*.muster-part")) + list(part.glob("*.safetensors")):
        time.sleep(0.005)
    runs[victim].child.kill()
    for run in runs:
        run.end()
    good(all_of(requests(places, origin)))
    assert all(same(origin, place) for place in places)


def test_what_a_dead_control_machine_left_half_done_is_gone_on_with(tmp_path: Path) -> None:
    origin = model(tmp_path / "origin", {f"{n}.safetensors": 24 * MIB for n in range(4)})
    places = homes(tmp_path, 2)
    asked = requests(places, origin, interval=0.05)
    seed = asked[1]["peers"]["h0"]
    with slowed(seed["address"], seed["port"], caller=asked[1]["address"], seconds=60.0) as port:
        runs = [Run(request) for request in [asked[0], {**asked[1], "peers": {"h0": {**seed, "port": port}}}]]
        limit = time.monotonic() + 30
        while time.monotonic() < limit and not list(places[1].glob("*.muster-part")):
            time.sleep(0.005)
        for run in runs:  # as when their SSH sessions end
            assert run.child.stdout
            assert run.child.stderr
            run.child.stdout.close()
            run.child.stderr.close()
        assert all(run.child.wait(60) for run in runs)  # they end, and do not go on unseen
    assert not list(places[1].glob("*.safetensors"))
    assert list(places[1].glob("*.muster-part"))
    good(all_of(requests(places, origin)))
    assert same(origin, places[1])


@pytest.mark.parametrize("harm", ["flip", "truncate"])
def test_the_control_machine_sends_what_is_damaged_at_the_seed_in_one_run(
    tmp_path: Path, origin: Path, harm: str
) -> None:
    (place,) = homes(tmp_path, 1)
    good(all_of(requests([place], origin)))
    victim = place / "a.safetensors"
    with victim.open("r+b") as handle:
        if harm == "flip":
            handle.seek(5 * MIB)
            handle.write(b"\0\0\0\0")
        else:
            handle.truncate(6 * MIB)
    missing = weights_on_disk.missing(pinned(place, origin))["missing"]
    assert missing == {"a.safetensors": 5 * MIB if harm == "flip" else 6 * MIB}
    for path, here in missing.items():
        with (place / f"{path}.muster-wan").open("ab") as handle:
            handle.write((origin / path).read_bytes()[here:])
    good(all_of(requests([place], origin, source={"kind": "control", "from": "from the control machine"})))
    assert same(origin, place)


def test_stray_files_are_no_room_for_the_pinned_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = model(tmp_path / "place", {"x": 2 * MIB, "y.muster-part": MIB, "stray": 9 * MIB})
    files = [{"path": "x", "size": MIB}, {"path": "y", "size": 4 * MIB}]
    monkeypatch.setattr(transfer_room.store, "free", lambda directory: RESERVE + 3 * MIB)
    transfer_room.check_room(str(place), files)
    files.append({"path": "z", "size": 1})
    with pytest.raises(OSError, match="fix: free 1 "):
        transfer_room.check_room(str(place), files)


def test_no_room_is_refused_with_the_arithmetic_before_anything_is_written(tmp_path: Path, origin: Path) -> None:
    (place,) = homes(tmp_path, 1)
    asked = requests([place], origin)
    asked[0]["listing"]["files"][0]["size"] = 1 << 60
    ((status, _, error),) = all_of(asked)
    assert status != 0
    assert "GiB must stay free" in error
    assert "fix: free" in error
    assert list(place.iterdir()) == []


def test_a_path_that_leads_out_is_refused(tmp_path: Path, origin: Path) -> None:
    (place,) = homes(tmp_path, 1)
    asked = requests([place], origin)
    asked[0]["listing"]["files"][0]["path"] = "../../evil"
    ((status, _, error),) = all_of(asked)
    assert status != 0
    assert "names a file outside its directory" in error
