"""The pure side: pins, layout, options, keys, and who does what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.hosts.program_operation import public
from muster.plan import weights_path
from muster.spec import listing, pins, recipe
from muster.spec.host_data import settings_of
from muster.spec.listing import Entry, Listing
from muster.spec.settings import Settings, Weights
from muster.weights.keys import pair_keys
from muster.weights.staging_roles import choose_seed, secret, staging

GIB = 1 << 30
LISTING = Listing("org/model", "d" * 40, "hub", (Entry("a.safetensors", 10 * GIB, "1" * 64),))
HOSTS = {"h0": "198.51.100.1", "h1": "198.51.100.2", "h2": "198.51.100.3"}
KEYS = pair_keys(list(HOSTS), b"s" * 32)


def probe(**more: Any) -> dict[str, Any]:
    return {"complete": False, "bytes": 0, "free": 100 * GIB, "link": "", "revisions": {}, **more}


def decide(probes: Mapping[str, Mapping[str, Any]], **more: Any) -> Any:
    source = {"kind": "hub", "token": secret(more.pop("token", "t"))}
    return staging(HOSTS, probes, LISTING, Weights(source="hub", **more), KEYS, source)


def test_complete_hosts_are_asked_for_nothing() -> None:
    found = decide({host: probe(complete=True, link="d" * 40) for host in HOSTS})
    assert found.requests == {}
    assert found.links == ()
    assert "complete on all 3 hosts" in found.text(LISTING)


def test_one_host_that_lacks_something_gets_it_from_all() -> None:
    probes = {"h0": probe(), "h1": probe(complete=True), "h2": probe(complete=True)}
    found = decide(probes)
    assert found.seed == "h1"
    assert set(found.requests) == set(HOSTS)
    assert set(found.requests["h0"]["peers"]) == {"h1", "h2"}


def test_nothing_that_is_printed_of_a_request_is_a_secret() -> None:
    requests = decide({host: probe() for host in HOSTS}, token="hub-token").requests
    printed = json.dumps([public(request) for request in requests.values()])
    assert "hub-token" not in printed
    assert not any(key in printed for keys in KEYS.values() for key in keys.values())


def test_only_the_seed_gets_the_token() -> None:
    found = decide({host: probe() for host in HOSTS})
    assert [host for host, request in found.requests.items() if (request["source"] or {}).get("token")] == ["h0"]


@pytest.mark.parametrize(
    ("probes", "requested", "seed"),
    [
        ({"h0": probe(), "h1": probe()}, None, "h0"),
        ({"h0": probe(), "h1": probe(bytes=5)}, None, "h1"),
        ({"h0": probe(), "h1": probe(bytes=5)}, "h0", "h0"),
        ({"h0": probe(), "h1": probe(complete=True)}, "h0", "h1"),
    ],
)
def test_the_seed(probes: dict[str, Any], requested: str | None, seed: str) -> None:
    assert choose_seed(list(probes), probes, requested) == seed


def test_a_seed_that_is_no_host_is_refused() -> None:
    with pytest.raises(Refusal, match="weights_seed is 'h9'"):
        choose_seed(["h0"], {"h0": probe()}, "h9")


def test_a_host_without_room_is_refused_with_the_arithmetic() -> None:
    probes = {"h0": probe(), "h1": probe(free=4 * GIB, bytes=3 * GIB, revisions={"e" * 40: 9 * GIB}), "h2": probe()}
    with pytest.raises(Refusal) as refusal:
        decide(probes)
    text = str(refusal.value)
    assert "h1: 10.0 GiB of files - 3.0 GiB here + 1.0 GiB to stay free = 8.0 GiB, but 4.0 GiB are free" in text
    assert "revision eeeeeeeeeeee takes 9.0 GiB" in text
    assert "muster weights prune" in text


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=8, unique=True))
def test_a_pair_of_hosts_shares_a_key_that_no_other_pair_has(hosts: list[str]) -> None:
    keys = pair_keys(hosts, b"s" * 32)
    pairs = {keys[one][other] for one in hosts for other in hosts if one != other}
    assert len(pairs) == len(hosts) * (len(hosts) - 1) // 2
    assert all(keys[one][other] == keys[other][one] for one in hosts for other in hosts if one != other)
    assert all(host not in keys[host] for host in hosts)


@pytest.mark.parametrize("model", ["../x", "/x", "a/../b", "a/b/c", "a b"])
def test_a_model_name_cannot_lead_out(model: str) -> None:
    with pytest.raises(Refusal):
        weights_path.revision_path("/w", model, "d" * 40)


def test_a_revision_has_a_directory_of_its_own() -> None:
    assert weights_path.revision_path("/w", "org/model", "d" * 40) == f"/w/org--model/{'d' * 40}"


def test_without_a_source_nothing_is_staged_and_settings_stay() -> None:
    instruct = recipe.load("kimi-k2-instruct")
    assert weights_path.served_path(Settings(), instruct) is None
    assert weights_path.applied(Settings(), instruct) == Settings()


@pytest.mark.parametrize(
    ("source", "kind"),
    [("hub", "hub"), ("modelscope", "modelscope"), ("/mnt/x", "directory"), ("control:/srv/x", "control")],
)
def test_sources(source: str, kind: str) -> None:
    assert Weights(source=source).kind == kind


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(Refusal, match="weights_source is 'hubb'"):
        settings_of({"weights_source": "hubb"})


def test_a_source_without_a_pin_is_refused() -> None:
    with pytest.raises(Refusal, match="muster pin kimi-k2-instruct"):
        weights_path.served_path(Settings(weights_source="hub"), recipe.load("kimi-k2-instruct"))


def test_with_a_source_and_a_pin_a_directory_is_served_offline() -> None:
    applied = weights_path.applied(Settings(weights_source="hub", revision="d" * 40), recipe.load("kimi-k2-instruct"))
    assert applied.model == f"/var/lib/muster/weights/moonshotai--Kimi-K2-Instruct/{'d' * 40}"
    assert applied.offline
    assert applied.revision is None


def test_a_pin_survives_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pins.read("some") is None
    place = pins.write("some", LISTING)
    assert place == Path("pins/some.json")
    assert pins.read("some") == LISTING
    assert len(place.read_text().splitlines()) == 3 + 1 + len(LISTING.files) + 1 + 2


def test_a_pin_moves_the_recipe_of_its_model_only() -> None:
    instruct = recipe.load("kimi-k2-instruct")
    assert pins.pinned(instruct, LISTING).revision == instruct.revision
    own = Listing(instruct.model, "d" * 40, "hub", LISTING.files)
    assert pins.pinned(instruct, own).revision == "d" * 40


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"revision": "main"}, "40 hexadecimal digits"),
        ({"files": []}, "names no file"),
        ({"files": [{"path": "../x", "size": 1, "sha256": "1" * 64}]}, "'../x'"),
        ({"files": [{"path": "/x", "size": 1, "sha256": "1" * 64}]}, "'/x'"),
        ({"files": [{"path": "x", "size": 1, "sha256": "zz"}]}, "impossible size or digest"),
        ({"files": [{"path": "x"}]}, "is no file"),
    ],
)
def test_a_listing_that_cannot_be_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        listing.parse({**LISTING.as_data(), **change}, where="pins/x.json")
