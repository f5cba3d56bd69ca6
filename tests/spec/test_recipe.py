"""Recipes: read, validated, refused with the nearest name."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from muster import resources
from muster.errors import Refusal
from muster.spec import recipe


@pytest.fixture
def raw() -> dict:
    return yaml.safe_load((resources.directory("recipes") / "kimi-k2-instruct.yaml").read_text())


def test_bundled_recipes_load_by_name_and_by_underscore_name() -> None:
    assert {"kimi-k2-instruct", "kimi-k2-thinking", "glm-5-2"} <= set(recipe.names())
    assert recipe.load("kimi_k2_thinking").name == "kimi-k2-thinking"


def test_a_recipe_of_ones_own_loads_by_path(tmp_path: Path, raw: dict) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw | {"name": "mine"}))
    assert recipe.load(str(tmp_path / "mine.yaml")).name == "mine"


@pytest.mark.parametrize(
    ("path", "key", "says"),
    [
        ([], "modell", "unknown recipe key 'modell'; did you mean 'model'"),
        (["shape"], "hiden_size", "did you mean 'hidden_size'"),
        (["strategies", "dp-ep"], "featurs", "did you mean 'features'"),
        (["features", "tool_calling"], "flag", "did you mean 'flags'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(raw: dict, path: list[str], key: str, says: str) -> None:
    broken = copy.deepcopy(raw)
    place = broken
    for part in path:
        place = place[part]
    place[key] = 1
    with pytest.raises(Refusal, match=says):
        recipe.parse(broken, where="mine.yaml")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"strategies": {"tp-p": {"about": "x"}}}, "did you mean 'tp-pp'"),
        ({"defaults": {"any": "tp-p"}}, "did you mean 'tp-pp'"),
        ({"context": 0}, "context is 0"),
        ({"features": {}}, "unknown feature 'tool_calling'"),
        ({"endpoint": "transcription"}, "takes a file of sound"),
        (
            {"strategies": {"x": {"about": "x", "sizes": {"tp": 1}, "load_balancing": "external"}}},
            "guards ask one endpoint on a host",
        ),
    ],
)
def test_bad_values_are_refused_in_words(raw: dict, change: dict, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        recipe.parse(raw | change, where="mine.yaml")


def test_what_is_not_a_mapping_or_not_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="a mapping of recipe keys"):
        recipe.parse(["x"], where="mine.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(Refusal, match="not YAML"):
        recipe.load(str(tmp_path / "broken.yaml"))
