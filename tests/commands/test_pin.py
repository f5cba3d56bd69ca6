"""`muster pin` as a user runs it, against a hub on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from muster.commands.pin import differences, pin
from muster.errors import Refusal
from muster.spec import pins, recipe
from muster.spec.listing import Entry, Listing
from tests.weights.hub_server import Hub, serving

RECIPE = "kimi-k2-instruct"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    files = {"config.json": b"{}", "model.safetensors": b"x" * 20_000}
    with serving(Hub(recipe.load(RECIPE).model, files, token="right")) as one:
        Path("token").write_text("right\n")
        yield one


def muster_pin(hub: Hub, *words: str) -> Result:
    return CliRunner().invoke(pin, [RECIPE, "--endpoint", hub.url, "--token-file", "token", *words])


def test_a_pin_is_written_once_and_moves_when_the_branch_does(hub: Hub) -> None:
    first = muster_pin(hub)
    assert first.exit_code == 0, first.output
    assert f"pinned to {'a' * 40}: 2 files" in first.output
    assert "right" not in Path("pins", f"{RECIPE}.json").read_text()
    again = muster_pin(hub)
    assert "nothing changed" in again.output
    assert muster_pin(hub, "--check").exit_code == 0

    hub.commit = "b" * 40
    hub.files["model.safetensors"] = b"y" * 20_000
    moved = muster_pin(hub, "--check")
    assert moved.exit_code == 1
    assert f"now {hub.model} at {'b' * 40}" in moved.output
    assert "changed model.safetensors" in moved.output
    kept = pins.read(RECIPE)
    assert kept is not None
    assert kept.revision == "a" * 40
    assert muster_pin(hub).exit_code == 0
    now = pins.read(RECIPE)
    assert now is not None
    assert now.revision == "b" * 40


def test_a_directory_is_pinned_without_a_hub(hub: Hub) -> None:
    Path("model").mkdir()
    Path("model", "config.json").write_text("{}")
    done = CliRunner().invoke(pin, [RECIPE, "--from", "model"])
    assert done.exit_code == 0, done.output
    kept = pins.read(RECIPE)
    assert kept is not None
    assert kept.revision == kept.digest[:40]


def test_a_hub_that_refuses_is_explained(hub: Hub) -> None:
    hub.token = "another"
    done = muster_pin(hub)
    assert isinstance(done.exception, Refusal)
    assert "answered 401" in str(done.exception)
    assert pins.read(RECIPE) is None


def test_a_pin_that_moves_says_what_has_changed() -> None:
    old = Listing("m", "a" * 40, "hub", (Entry("gone", 1, "1" * 64), Entry("x", 1, "1" * 64)))
    new = Listing("m", "b" * 40, "hub", (Entry("new", 1 << 20, "1" * 64), Entry("x", 1, "2" * 64)))
    lines = differences(old, new)
    assert lines[0] == f"was m at {'a' * 40}, now m at {'b' * 40}"
    assert lines[1:] == ["  gone    gone", "  new     new, 1 MiB", "  changed x"]
    assert differences(old, old) == []


def test_a_draft_is_pinned_beside_the_recipes_model(hub: Hub) -> None:
    assert muster_pin(hub).exit_code == 0
    hub.model = "org/eagle-head"
    done = muster_pin(hub, "--draft", "org/eagle-head")
    assert done.exit_code == 0, done.output
    assert Path("pins", f"{RECIPE}.org--eagle-head.json").is_file()
    assert [draft.model for draft in pins.drafts(RECIPE)] == ["org/eagle-head"]
    assert "nothing changed" in muster_pin(hub, "--draft", "org/eagle-head").output
    main = pins.read(RECIPE)
    assert main is not None
    assert main.model == recipe.load(RECIPE).model
    for name in ("../escape", "/srv/draft", "a/b/c", "org/.."):
        refused = muster_pin(hub, "--draft", name)
        assert isinstance(refused.exception, Refusal)
        assert "draft model" in refused.exception.found


def test_a_drafts_pin_of_the_inventory_counts_where_the_working_directory_has_none(tmp_path: Path) -> None:
    Path(tmp_path, "pins").mkdir()
    listing = Listing("org/d.1", "a" * 40, "hub", (Entry("config.json", 2, "0" * 64),))
    Path(tmp_path, "pins", f"{RECIPE}.org--d.1.json").write_text(json.dumps(listing.as_data()))
    Path(tmp_path, "pins", f"{RECIPE}-2.json").write_text("no pin of a draft")
    assert pins.drafts(RECIPE, [tmp_path]) == (listing,)
    Path(tmp_path, "pins", f"{RECIPE}.broken.json").write_text("[")
    with pytest.raises(Refusal, match="not JSON"):
        pins.drafts(RECIPE, [tmp_path])
