"""`muster bundle`: pins and weights of a model and its drafts; engines are gathered in tests/weights/test_gather.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from muster.errors import Refusal
from muster.on_host.whole_files import text_sha256
from muster.spec import bundles, pins, recipe
from muster.spec.listing import Entry, Listing
from muster.spec.settings import Weights
from muster.weights import gather
from muster.weights.staging_run import draft_source
from tests.commands.conftest import muster

RECIPE, DRAFT = "kimi-k2-instruct", "org/d.1"
INVENTORY = "hosts = (['h'], {'gpu': 'H200', 'gpus': 8, 'fabric_address': '10.0.0.1', 'fabric_interface': 'eth1'})\n"


def listing(model: str, text: str) -> Listing:
    return Listing(model, "a" * 40, "hub", (Entry("x/config.json", len(text), text_sha256(text)),))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an inventory, pins of a model and of a draft, and their weights beside each other."""

    def lock(release: object, out: Path, *, platform: str) -> Path:
        (out / "wheels").mkdir(parents=True, exist_ok=True)
        (out / "pylock.toml").write_text("")
        return out / "pylock.toml"

    monkeypatch.setattr(gather, "lock", lock)
    monkeypatch.setattr(gather, "wheels", lambda locked, place: [])
    monkeypatch.chdir(tmp_path)
    Path("hosts.py").write_text(INVENTORY)
    model = recipe.load(RECIPE).model
    for name, text in ((model, "{}"), (DRAFT, "[]")):
        place = Path("models", name.replace("/", "--"), "x")
        place.mkdir(parents=True)
        (place / "config.json").write_text(text)
        pins.write(RECIPE, listing(name, text), draft=name == DRAFT)
    return tmp_path / "models" / model.replace("/", "--")


def bundled(*words: str) -> Result:
    common = ("--data", "torch_backend=cu130", "--data", "strategy=dp-ep", "--data", "allow_oversubscription=True")
    return muster("bundle", "hosts.py", RECIPE, "--out", "out", *common, *words)


def bundle(*words: str) -> Path:
    done = bundled(*words)
    assert done.exit_code == 0, done.output
    return Path("out")


def test_a_draft_comes_with_the_weights_of_its_model(here: Path) -> None:
    out = bundle("--weights", str(here))
    assert (out / bundles.WEIGHTS / "x/config.json").read_text() == "{}"
    assert (bundles.draft(out, DRAFT) / "x/config.json").read_text() == "[]"
    Path("pins", f"{RECIPE}.org--d.1.json").unlink()
    (found,) = pins.drafts(RECIPE, bundle=out)
    assert found == listing(DRAFT, "[]")
    assert draft_source(Weights(source="hub"), found, out).source == f"control:{bundles.draft(out.resolve(), DRAFT)}"


def test_a_draft_that_is_pinned_no_more_leaves_the_bundle(here: Path) -> None:
    assert json.loads(bundles.draft_pin(bundle(), DRAFT).read_text())["model"] == DRAFT
    Path("pins", f"{RECIPE}.org--d.1.json").unlink()
    assert pins.drafts(RECIPE, bundle=bundle()) == ()


def test_a_draft_without_weights_is_refused_by_name(here: Path) -> None:
    (here.parent / "org--d.1" / "x" / "config.json").unlink()
    refused = bundled("--weights", str(here))
    assert refused.exit_code == 2
    assert "org--d.1 has no x/config.json" in refused.output
    out = Path("elsewhere")
    with pytest.raises(Refusal, match=r"org/d.1 is pinned as a draft, and the bundle elsewhere has the model's"):
        draft_source(Weights(source="hub"), listing(DRAFT, "[]"), out)


def test_without_a_bundle_a_draft_is_beside_its_model() -> None:
    for source, draft in (("hub", "hub"), ("/srv/m/a--b", "/srv/m/org--d.1"), ("control:/m/a", "control:/m/org--d.1")):
        assert draft_source(Weights(source=source), listing(DRAFT, "[]"), None).source == draft
