"""`muster recipe new` and `muster plan INVENTORY ORG/MODEL`: a recipe out of a model's own config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.spec import recipe
from muster.spec.model_recipe import recipe_of
from muster.spec.settings import Settings
from tests.commands.conftest import muster
from tests.sample_plans import hosts
from tests.weights.hub_server import Hub, serving

ROOT = Path(__file__).parents[2]
CONFIGS: dict[str, dict[str, Any]] = json.loads((ROOT / "tests/spec/model_configs.json").read_text())
MODEL = "my-org/My-Model.1"


def config_file(directory: Path, name: str = "qwen3-235b", **change: Any) -> str:
    place = directory / "config.json"
    place.write_text(json.dumps({**CONFIGS[name], "architectures": ["AnyForCausalLM"], **change}))
    return str(place)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_known_kind_of_model_becomes_a_recipe_that_plans(name: str) -> None:
    raw, notes = recipe_of(MODEL, CONFIGS[name])
    made = recipe.parse(raw, where=MODEL)
    inside = CONFIGS[name].get("text_config", CONFIGS[name])
    assert made.context == inside["max_position_embeddings"]
    assert made.shape is not None
    assert made.shape.num_hidden_layers == inside["num_hidden_layers"]
    assert ("tep" in made.strategies) == (made.shape.n_routed_experts > 0)
    assert not made.features
    assert "parsers of tool calls and reasoning are not known" in notes[-1]
    settings = Settings(strategy="tp-pp", allow_oversubscription=True)
    assert build_plan(made, hosts(2, "H200"), settings).label == "TP8+PP2"


def test_an_unknown_kind_has_no_shape_and_code_of_its_own_is_said() -> None:
    raw, notes = recipe_of(MODEL, {"model_type": "mamba9", "max_position_embeddings": 4096, "auto_map": {"x": "y"}})
    assert "shape" not in raw
    assert raw["flags"] == {"trust-remote-code": True}
    assert any("no shape: model_type mamba9 is not known" in line for line in notes)
    assert any("code of its own" in line for line in notes)


def test_without_a_context_length_none_is_made_up() -> None:
    with pytest.raises(Refusal, match="no context length"):
        recipe_of(MODEL, {"model_type": "llama"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
)


@given(st.sampled_from(sorted({*CONFIGS["gpt-oss-120b"], "architectures", "auto_map", "text_config"})), JSON)
def test_whatever_a_key_holds_a_recipe_comes_out_or_a_refusal(key: str, value: object) -> None:
    try:
        raw, notes = recipe_of(MODEL, {**CONFIGS["gpt-oss-120b"], key: value})
    except Refusal:
        return
    recipe.parse(raw, where=MODEL)
    assert all(line.isprintable() for line in notes)


def test_a_file_is_written_once_and_says_what_it_does_not_know(tmp_path: Path) -> None:
    output = tmp_path / "mine.yaml"
    words = ["recipe", "new", MODEL, "--config", config_file(tmp_path), "--output", str(output)]
    ran = muster(*words)
    assert ran.exit_code == 0, ran.output
    assert "architecture AnyForCausalLM" in ran.output
    assert "128 experts" in ran.output
    assert "# parsers of tool calls" in output.read_text()
    assert recipe.load(str(output)).name == "my-model-1"
    assert muster(*words).exit_code != 0


def test_the_hubs_config_is_read_where_no_file_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"config.json": Path(config_file(tmp_path)).read_bytes()}
    with serving(Hub(MODEL, files)) as hub:
        ran = muster("recipe", "new", MODEL, "--endpoint", hub.url)
        assert ran.exit_code == 0, ran.output
        hub.files["config.json"] = b"[]"
        assert "no config.json" in muster("recipe", "new", MODEL, "--endpoint", hub.url, "--output", "b").output
    assert recipe.load(str(tmp_path / "my-model-1.yaml")).context == 262_144


def test_a_model_is_planned_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ran = muster("plan", "inventories/h200-8.py", MODEL, "--config", config_file(tmp_path))
    assert ran.exit_code == 0, ran.output
    assert f"vllm serve {MODEL}" in ran.output
    assert "94 layers, 128 experts, 16 bits" in ran.output
    assert "memory of one GPU" in ran.output
    assert "parsers of tool calls and reasoning are not known" in ran.output


@pytest.mark.parametrize("body", [b"[]", b"{", b"x" * 300_000])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, body: bytes) -> None:
    place = tmp_path / "config.json"
    place.write_bytes(body)
    ran = muster("recipe", "new", MODEL, "--config", str(place))
    assert ran.exit_code == 2
    assert "is no config.json" in ran.output
