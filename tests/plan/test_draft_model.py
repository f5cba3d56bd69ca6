"""A draft model in the plan: held to its pin, served from where it is staged, and in the memory table."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from muster.errors import Refusal
from muster.plan import gpu_memory
from muster.plan.flags_in_argv import values_of
from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.spec import model_config, recipe
from muster.spec.listing import Entry, Listing
from muster.spec.settings import Settings
from tests.plan.test_recipe_layers import RAW
from tests.sample_plans import hosts

COMMIT, OTHER = "0123456789abcdef0123456789abcdef01234567", "f" * 40
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 1,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
PIN = Listing("org/draft", COMMIT, "hub", (Entry("model.safetensors", 3 << 30, "0" * 64),), CONFIG)
PATH = f"/var/lib/muster/weights/org--draft/{COMMIT}"
DRAFT = {"method": "eagle3", "model": "org/draft", "num_speculative_tokens": 3}
SHAPE = {
    **{key: value for key, value in CONFIG.items() if key != "model_type"},
    "num_hidden_layers": 32,
    "head_dim": 128,
}


def planned(flags: dict[str, Any] | None = None, pins: tuple[Listing, ...] = (PIN,), **settings: Any) -> Plan:
    raw = copy.deepcopy(RAW) | {"shape": SHAPE, "flags": flags or {}, "features": {"tool_calling": {"flags": {}}}}
    # As `weights_path.applied` gives them where the weights are staged.
    staged = {"model": "/var/lib/muster/weights/org--layers/1", "offline": True, "weights_source": "hub"}
    given = settings if settings.pop("hub", False) else {**staged, **settings}
    return build_plan(recipe.parse(raw, where="x"), hosts(1, "H200"), Settings(**given), drafts=pins)


def speculative(plan: Plan) -> dict[str, str]:
    """Return what the command line says of speculative decoding, JSON and fields alike."""
    given = values_of(plan.head.processes[-1].argv)
    fields = {name.partition(".")[2]: value for name, value in given.items() if name.startswith("speculative-config.")}
    named = {name.replace("-", "_"): value for name, value in fields.items()}
    return {**json.loads(given.get("speculative-config", "{}")), **named}


WORDS = [
    {"flags": {"speculative-config": json.dumps(DRAFT)}},
    {"flags": {"speculative-config.model": "org/draft", "speculative-config.method": "eagle3"}},
    {"extra_args": ["--speculative-config", json.dumps(DRAFT)]},
    {"extra_args": [f"--speculative_config={json.dumps(DRAFT)}"]},
    {"extra_args": ["--speculative-config.method", "eagle3", "--speculative-config.model=org/draft"]},
    {"extra_args": ["--speculative-config.method", "eagle3", "--speculative-config.model", "org/draft"]},
]


@pytest.mark.parametrize("words", WORDS)
def test_a_staged_draft_is_served_from_its_directory(words: dict[str, Any]) -> None:
    plan = planned(**words)
    assert (speculative(plan)["model"], speculative(plan)["method"]) == (PATH, "eagle3")
    assert "revision" not in speculative(plan)
    assert not any("in no memory table" in note for note in plan.warnings)


@pytest.mark.parametrize("words", WORDS)
def test_a_pinned_draft_that_the_engine_fetches_is_fetched_at_its_commit(words: dict[str, Any]) -> None:
    plan = planned(hub=True, revision=COMMIT, **words)
    told = speculative(plan)
    assert (told["model"], told["revision"], told["code_revision"]) == ("org/draft", COMMIT, COMMIT)
    assert plan.refused is None


def test_a_staged_draft_without_a_pin_is_refused_by_name() -> None:
    with pytest.raises(Refusal, match=r"(?s)the draft model org/draft .*muster pin layers --draft org/draft"):
        planned(WORDS[0]["flags"], pins=())


def test_another_revision_than_the_pins_is_refused() -> None:
    with pytest.raises(Refusal, match=f"at {OTHER}, and its pin {COMMIT}"):
        planned({"speculative-config": json.dumps({**DRAFT, "revision": OTHER})})
    assert speculative(planned({"speculative-config": json.dumps({**DRAFT, "revision": COMMIT})}))["model"] == PATH


def test_the_drafts_weights_and_cache_are_in_the_table() -> None:
    with_draft, alone = planned(WORDS[0]["flags"]).memory, planned().memory
    assert with_draft is not None
    assert alone is not None
    part = next(part for part in with_draft.parts if part.name == "draft model")
    shape = model_config.shape_of(CONFIG, weight_bytes=3 << 30)
    assert part.bytes == pytest.approx(gpu_memory.weight_bytes(shape) / 8, rel=1e-6)  # TP8
    assert with_draft.cache == alone.cache - part.bytes
    assert with_draft.token_bytes == pytest.approx(alone.token_bytes * 33 / 32)  # one layer beside 32 equal ones
    assert "org/draft, 1 layers" in with_draft.table()


def test_a_draft_of_an_unknown_kind_counts_by_its_bytes() -> None:
    unknown = Listing("org/draft", COMMIT, "hub", PIN.files, {"model_type": "songs"})
    memory = planned(WORDS[0]["flags"], pins=(unknown,)).memory
    assert memory is not None
    assert next(part.bytes for part in memory.parts if part.name == "draft model") == (3 << 30) // 8
    assert "its cache is not known" in memory.table()


def test_pins_change_nothing_where_no_draft_is_asked_for() -> None:
    mtp = {"speculative-config": '{"method":"mtp","num_speculative_tokens":1}'}
    for flags in ({}, mtp):
        assert planned(flags) == planned(flags, pins=())
