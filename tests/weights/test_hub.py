"""Pinning asks a hub, ModelScope or a directory; every failure is explained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.errors import Refusal
from muster.spec import listing as listings
from muster.weights import hub as hub_client
from tests.free_port import free_port
from tests.weights.hub_server import FILES, Hub, pin, serving


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub("org/model", dict(FILES))) as one:
        yield one


def test_a_pin_names_the_commit_and_every_file(hub: Hub) -> None:
    listing = pin(hub)
    assert listing.revision == "a" * 40
    assert [entry.path for entry in listing.files] == sorted(FILES)
    assert [entry.size for entry in listing.files] == [len(FILES[name]) for name in sorted(FILES)]


def test_a_pin_of_modelscope_names_the_same_bytes(hub: Hub) -> None:
    listing = hub_client.from_modelscope("org/model", "master", endpoint=hub.url)
    assert listing.digest == pin(hub).digest


def test_a_pin_of_a_directory_is_named_by_its_content(tmp_path: Path, hub: Hub) -> None:
    for name, body in FILES.items():
        (tmp_path / name).write_bytes(body)
    listing = hub_client.from_directory("org/model", tmp_path)
    assert listing.digest == pin(hub).digest
    assert listing.revision == listing.digest[:40]


@pytest.mark.parametrize(
    ("model", "revision", "token", "says"),
    [
        ("org/model", "main", "wrong", "answered 401"),
        ("org/other", "main", "right", "answered 404"),
        ("org/model", "no-such-branch", "right", "answered 404"),
    ],
)
def test_a_pin_that_cannot_be_says_why(hub: Hub, model: str, revision: str, token: str, says: str) -> None:
    hub.token = "right"
    with pytest.raises(Refusal, match=says):
        hub_client.from_hub(model, revision, endpoint=hub.url, token=token)


def test_a_pin_from_nobody_says_what_to_set() -> None:
    with pytest.raises(Refusal, match="does not answer"):
        hub_client.from_hub("org/model", "main", endpoint=f"http://127.0.0.1:{free_port()}")


def test_a_pin_keeps_the_models_configuration_and_reads_it_back(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    listing = hub_client.from_directory("org/model", tmp_path)
    assert listing.config == {"model_type": "llama"}
    assert listings.parse(listing.as_data(), where="pin") == listing
    for text in ("[1]", "{", '{"a": "' + "x" * listings.CONFIG_LIMIT + '"}'):
        (tmp_path / "config.json").write_text(text)
        assert hub_client.from_directory("org/model", tmp_path).config is None
    with pytest.raises(Refusal, match="config is no config"):
        listings.parse({**listing.as_data(), "config": [1]}, where="pin")


def test_a_hubs_configuration_is_kept_too(hub: Hub) -> None:
    assert pin(hub).config == {"architectures": []}
