"""A seed, or a peer, that does not keep to the pin: it is named, and nothing that is not pinned gets a name."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import transfer_chunks, transfer_room, transfer_store, weights_on_disk
from muster.on_host.transfer_pieces import PieceMap
from muster.spec import pins, recipe
from muster.weights import hub as hub_client
from tests import planted_python
from tests.conftest import Boot
from tests.on_host.transfer_runs import Run, all_of, homes, listing_of, model, pinned, requests, same
from tests.weights.hub_server import Hub, serving
from tests.weights.test_staging_run import RECIPE, SCRIPT, run

FILES = {"config.json": 700, "code/modeling.py": 5000, "a.safetensors": 900_000}
CODE = "code/modeling.py"
EVIL = b"import os  # not what was reviewed\n"


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """What is pinned."""
    return model(tmp_path / "origin", FILES)


def changed(origin: Path, place: Path, *, longer: bool) -> Path:
    """Copy a model, with code of the attacker's."""
    model(place, FILES)
    size = 900_000 if longer else FILES[CODE]
    (place / CODE).write_bytes((EVIL * 30_000)[:size])
    return place


class PatchedRun(Run):
    """A host whose Python changes the program that it is sent."""

    def __init__(self, request: Mapping[str, Any], module: str, before: str, after: str) -> None:
        self.change = (module, before, after)
        super().__init__(request)

    def program(self, request: Mapping[str, Any], *, streams: bool) -> str:
        lines = super().program(request, streams=streams).split("\n")
        module, before, after = self.change
        at = next(number for number, line in enumerate(lines) if line.startswith("SOURCES = "))
        sources = json.loads(ast.literal_eval(lines[at].removeprefix("SOURCES = ")))
        assert before in sources[module]
        sources[module] = sources[module].replace(before, after)
        lines[at] = f"SOURCES = {json.dumps(sources)!r}"
        return "\n".join(lines)


def check_nothing_of_it_is_kept(place: Path, origin: Path) -> None:
    assert not list(place.rglob("modeling.py*"))
    assert not (place / transfer_store.MANIFEST).exists()
    whole = [path for path in place.rglob("*") if path.is_file() and not path.name.startswith(".muster")]
    for path in (path for path in whole if not transfer_store.unfinished(path.name)):
        assert path.read_bytes() == (origin / path.relative_to(place)).read_bytes()


@pytest.mark.parametrize("longer", [False, True])
def test_a_seed_with_a_pin_of_its_own_is_named(tmp_path: Path, origin: Path, longer: bool) -> None:
    evil = changed(origin, tmp_path / "evil", longer=longer)
    places = homes(tmp_path, 3)
    asked = requests(places, origin, patience=2.0)
    asked[0] |= {"listing": listing_of(evil).as_data(), "source": {"kind": "directory", "path": str(evil)}}
    ended = all_of(asked)
    for place, (status, _, error) in list(zip(places, ended, strict=True))[1:]:
        assert status != 0
        assert "h0, the seed, announces" in error
        assert CODE in error or longer
        assert "nothing of it was kept" in error
        check_nothing_of_it_is_kept(place, origin)
    assert [status for status, _, _ in all_of(requests(places, origin))] == [0, 0, 0]
    assert all(same(origin, place) for place in places)


def test_a_seed_that_announces_the_pinned_digest_over_other_chunks_is_named(tmp_path: Path, origin: Path) -> None:
    evil = changed(origin, tmp_path / "evil", longer=False)
    places = homes(tmp_path, 2)
    asked = requests(places, origin, patience=2.0)
    asked[0] |= {"listing": listing_of(evil).as_data(), "source": {"kind": "directory", "path": str(evil)}}
    pinned = next(entry.sha256 for entry in listing_of(origin).files if entry.path == CODE)
    own = next(entry.sha256 for entry in listing_of(evil).files if entry.path == CODE)
    before = 'self.pieces.files[at]["sha256"]'
    liar = PatchedRun(asked[0], "transfer_serve", before, f'{before}.replace("{own}", "{pinned}")')
    status, _, error = Run(asked[1]).end()
    liar.end()
    assert status != 0
    assert f"{CODE} has SHA-256 {own}, but {pinned} is pinned" in error
    assert "h0 announces false digests" in error
    check_nothing_of_it_is_kept(places[1], origin)


def test_a_peer_that_is_not_the_seed_announces_nothing(tmp_path: Path, origin: Path) -> None:
    evil = changed(origin, tmp_path / "evil", longer=False)
    places = homes(tmp_path, 3)
    assert all_of(requests(places[1:2], evil) or [])[0][0] == 0
    asked = requests(places, origin, patience=2.0)
    asked[1] |= {"listing": listing_of(evil).as_data()}
    liar = PatchedRun(asked[1], "transfer_serve", "if self.me == self.seed:", "if True:")
    runs = [Run(asked[0]), Run(asked[2])]
    ended = [run.end() for run in runs]
    liar.end()
    assert ended[1][0] == 0, ended[1]
    assert same(origin, places[2])


def test_a_host_with_another_manifest_is_not_complete_and_not_all_right(tmp_path: Path, origin: Path) -> None:
    """What the attack left behind on earlier versions: files, stamps and manifest that agree with each other."""
    evil = changed(origin, tmp_path / "evil", longer=False)
    (place,) = homes(tmp_path, 1)
    assert all_of(requests([place], evil))[0][0] == 0
    pin = pinned(place, origin)
    state = weights_on_disk.probe(pin)
    assert (state["complete"], state["good"]) == (False, 0)
    assert state["wrong"] == {".muster-manifest.json": "not what is pinned"}
    assert set(weights_on_disk.verify(pin)["wrong"]) == {CODE, ".muster-manifest.json"}
    with pytest.raises(OSError, match="not what is pinned"):
        weights_on_disk.link(pin)
    assert not (place.parent / "current").exists()
    assert all_of(requests([place], origin))[0][0] == 0
    assert weights_on_disk.probe(pin)["complete"]
    assert weights_on_disk.verify(pin)["wrong"] == {}


@pytest.mark.parametrize(
    "record", ["[1]", "{}", '{"files": [1]}', '{"files": {"a": 1}}', "{" * 5000, '{"chunk": 262144, "files": {"a": 7}}']
)
def test_a_broken_record_is_no_record(tmp_path: Path, origin: Path, record: str) -> None:
    (place,) = homes(tmp_path, 1)
    place.mkdir(parents=True)
    for name in transfer_store.RECORDS:
        (place / name).write_text(record)
    assert transfer_chunks.known_chunks(str(place), 262144, listing_of(origin).as_data()["files"]) == {}
    assert all_of(requests([place], origin))[0][0] == 0
    assert same(origin, place)


def test_a_file_has_as_many_digests_as_chunks() -> None:
    pieces = PieceMap([{"path": "x", "size": 10, "sha256": "0" * 64}], [])
    with pytest.raises(ValueError, match="2 digests for 1 chunks"):
        pieces.learn_hashes(0, ["a", "b"])
    assert pieces.hashes == {}


# --- what somebody else owns

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


@needs_root
def test_root_stages_nothing_below_a_directory_of_another_user(tmp_path: Path, origin: Path) -> None:
    (place,) = homes(tmp_path, 1)
    place.parent.mkdir(parents=True)
    os.chown(place.parent.parent, 12345, 12345)
    secret = tmp_path / "secret"
    secret.write_text("do not truncate")
    ((status, _, error),) = all_of(requests([place], origin))
    assert status != 0
    assert "belongs to user 12345" in error
    assert "fix: chown root:root" in error
    for do in ("missing", "link", "prune"):
        with pytest.raises(OSError, match="belongs to user 12345"):
            weights_on_disk.main({"do": do, **pinned(place, origin)})


@needs_root
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_nor_below_one_that_others_may_write_to(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    os.chown(tmp_path / "open", 0, 12345)
    (tmp_path / "open").chmod(mode)
    with pytest.raises(OSError, match="who could exchange"):
        transfer_room.check_own(str(tmp_path / "open" / "weights"))
    (tmp_path / "open").chmod(mode | 0o1000)
    transfer_room.check_own(str(tmp_path / "open" / "weights"))


@needs_root
@pytest.mark.parametrize("suffix", ["", ".muster-part", ".muster-wan"])
@pytest.mark.parametrize("kind", ["link", "hard link", "fifo"])
def test_what_is_planted_is_neither_followed_nor_changed(tmp_path: Path, origin: Path, suffix: str, kind: str) -> None:
    places = homes(tmp_path, 2)
    secret = tmp_path / "secret"
    secret.write_text("do not truncate")
    secret.chmod(0o600)
    for place in places:
        (place / "code").mkdir(parents=True)
        planted = place / f"{CODE}{suffix}"
        if kind == "fifo":
            os.mkfifo(planted)
        elif kind == "link":
            planted.symlink_to(secret)
        else:
            planted.hardlink_to(secret)
    ended = all_of(requests(places, origin, patience=2.0))
    assert secret.read_text() == "do not truncate"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert all("fix: remove it" in error or status == 0 for status, _, error in ended), ended


@needs_root
def test_staged_files_are_roots_and_readable_by_all(tmp_path: Path, origin: Path) -> None:
    (place,) = homes(tmp_path, 1)
    model(place, FILES)
    os.chown(place / CODE, 12345, 12345)
    (place / CODE).chmod(0o666)
    assert all_of(requests([place], origin))[0][0] == 0
    for path in [place, *place.rglob("*")]:
        status = path.stat()
        assert status.st_uid == 0
        assert status.st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


def test_prune_removes_nothing_that_it_has_not_staged(tmp_path: Path) -> None:
    mine = model(tmp_path / "org--model" / ("b" * 40), {"thesis.txt": 10})
    (tmp_path / "org--model" / "old.removing").mkdir()
    asked = {
        "do": "prune",
        "directory": f"{tmp_path}/org--model/{'a' * 40}",
        "etc": str(tmp_path),
        "proc": str(tmp_path),
    }
    assert weights_on_disk.main(asked)["kept"] == {"b" * 40: "not staged by muster"}
    assert (mine / "thesis.txt").exists()
    assert (tmp_path / "org--model" / "old.removing").exists()


def test_a_place_of_muster_that_holds_something_else_is_left(tmp_path: Path, origin: Path) -> None:
    (place,) = homes(tmp_path, 1)
    assert all_of(requests([place], origin))[0][0] == 0
    (place.parent / "current").mkdir()
    with pytest.raises(OSError, match="no link of muster's"):
        weights_on_disk.link({"directory": str(place), "manifest": listing_of(origin).digest})
    subprocess.run(["rmdir", place.parent / "current"], check=True)


# --- on real hosts

INVENTORY = """\
from muster.sandbox.as_inventory import hosts as _hosts
_data = {{"weights_source": "modelscope", "hf_endpoint": {url!r}, "weights_interval": 1, "weights_patience": 3}}
hosts = ([host for host in _hosts({name!r}) if host[0] in {names!r}], _data)
"""
LIAR = """
# Runs what is sent, with another pin in it.
import sys
class Liar:
    def __init__(self, real):
        self.buffer, self.real = self, real
    def read(self, *size):
        text = self.real.read(*size)
        for one, other in {pairs!r}:
            text = text.replace(one, other)
        return text
    def __getattr__(self, name):
        return getattr(self.real, name)
sys.stdin = Liar(sys.stdin.buffer)
"""


@pytest.mark.sandbox
def test_a_lying_seed_gets_no_code_onto_another_host(sandbox: Boot, tmp_path: Path, origin: Path) -> None:
    box = sandbox("pair", hosts=2)
    evil = changed(origin, tmp_path / "evil", longer=False)
    name = recipe.load(RECIPE).model
    place = f"/var/lib/muster/weights/{name.replace('/', '--')}/{'a' * 40}"
    gateway = box.hosts[0].address.rsplit(".", 1)[0] + ".1"

    def content(directory: Path) -> dict[str, bytes]:
        return {path: (directory / path).read_bytes() for path in FILES}

    def deploy(url: str, names: list[str], *words: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "hosts.py").write_text(INVENTORY.format(url=url, name=box.name, names=names))
        return run(tmp_path, *words)

    def weights(command: str) -> subprocess.CompletedProcess[str]:
        return run(tmp_path, "muster", "weights", command, "hosts.py", RECIPE)

    stage = ["pyinfra", "-y", "hosts.py", SCRIPT, "--data", f"_recipe={RECIPE}"]
    both = ["node0", "node1"]
    for host in both:
        box.exec(host, ["rm", "-rf", place])
    with pytest.MonkeyPatch.context() as at:
        at.chdir(tmp_path)
        with serving(Hub(name, content(evil)), address=gateway) as hub:
            lie = hub_client.from_modelscope(name, "master", endpoint=hub.url)
            pins.write(RECIPE, lie)
            staged = deploy(hub.url, ["node0"], *stage)
            assert staged.returncode == 0, staged.stdout + staged.stderr
        with serving(Hub(name, content(origin)), address=gateway) as hub:
            pin = hub_client.from_modelscope(name, "master", endpoint=hub.url)
            pins.write(RECIPE, pin)
            digests = [(one.sha256, other.sha256) for one, other in zip(pin.files, lie.files, strict=True)]
            pairs = [(a.encode(), b.encode()) for a, b in [*digests, (pin.digest, lie.digest)] if a != b]
            liar = planted_python.beginning_with(LIAR.format(pairs=pairs))
            with planted_python.planted(box, "node0", liar):
                attacked = deploy(hub.url, both, *stage)
                told = attacked.stdout + attacked.stderr
                assert attacked.returncode != 0
                assert "node0, the seed, announces SHA-256" in told
                assert f"for {CODE}, but" in told
                assert "nothing of it was kept" in told
                find = f"find {place} -name 'modeling.py*'; ls {place}/../current; true"
                assert box.exec("node1", ["sh", "-c", find]).stdout.strip() == ""
                assert "node1: complete" not in weights("status").stdout
                assert weights("verify").returncode == 1
            # Without its own Python in between, what that host holds is seen for what it is.
            seen = weights("status").stdout
            assert "node0: 0 of 3 files verified" in seen
            assert ".muster-manifest.json: not what is pinned" in seen
            verified = weights("verify")
            assert verified.returncode == 1
            assert f"{CODE}: its SHA-256 is " in verified.stdout
            repaired = deploy(hub.url, both, *stage)
            assert repaired.returncode == 0, repaired.stdout + repaired.stderr
            verified = weights("verify")
            assert verified.stdout.count("all right") == 2, verified.stdout + verified.stderr
    for host in both:
        owner = box.exec(host, ["stat", "-c", "%U %a", f"{place}/{CODE}"]).stdout.strip()
        assert owner == "root 644"


@pytest.mark.sandbox
def test_weights_are_not_staged_where_the_engines_user_could_exchange_them(sandbox: Boot, tmp_path: Path) -> None:
    box = sandbox("pair", hosts=2)
    origin = model(tmp_path / "model", FILES)
    name = recipe.load(RECIPE).model
    gateway = box.hosts[0].address.rsplit(".", 1)[0] + ".1"
    files = {path: (origin / path).read_bytes() for path in FILES}
    with serving(Hub(name, files), address=gateway) as hub, pytest.MonkeyPatch.context() as at:
        at.chdir(tmp_path)
        pins.write(RECIPE, hub_client.from_modelscope(name, "master", endpoint=hub.url))
        text = INVENTORY.format(url=hub.url, name=box.name, names=["node0", "node1"])
        (tmp_path / "hosts.py").write_text(
            text.replace("_data = {", '_data = {"weights_root": "/srv/foreign/weights", ')
        )
        box.exec(
            "node1", ["sh", "-c", "mkdir -p /srv/foreign; chown nobody /srv/foreign; echo keep > /srv/foreign/mine"]
        )
        place = f"/srv/foreign/weights/{name.replace('/', '--')}/{'a' * 40}"
        stage = ["pyinfra", "-y", "hosts.py", SCRIPT, "--data", f"_recipe={RECIPE}"]
        done = run(tmp_path, *stage)
    assert done.returncode != 0
    assert "/srv/foreign belongs to nobody" in done.stdout + done.stderr
    assert "chown root:root /srv/foreign" in done.stdout + done.stderr
    assert box.exec("node1", ["cat", "/srv/foreign/mine"]).stdout == "keep\n"
    assert box.exec("node1", ["sh", "-c", f"ls {place} 2>/dev/null; true"]).stdout == ""
