"""Files that a recipe brings: read from beside it and nowhere else, whole, and as its SHA-256 says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.errors import Refusal
from muster.on_host.whole_files import text_sha256
from muster.spec import own_files, recipe
from tests.plan.test_recipe_layers import RAW

TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


def loaded(directory: Path, **files: Any) -> recipe.Recipe:
    path = directory / "layers.yaml"
    path.write_text(json.dumps({**RAW, "files": files}))
    return recipe.load(str(path))


def test_a_file_is_read_from_beside_the_recipe_or_from_the_recipe_itself(tmp_path: Path) -> None:
    (tmp_path / "tool.jinja").write_text(TEMPLATE)
    found = loaded(tmp_path, **{"tool.jinja": {}, "other.jinja": {"text": "x"}}).files
    assert {name: file.text for name, file in found.items()} == {"tool.jinja": TEMPLATE, "other.jinja": "x"}


def test_another_text_than_the_recipes_sha256_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tool.jinja").write_text(TEMPLATE)
    assert loaded(tmp_path, **{"tool.jinja": {"sha256": text_sha256(TEMPLATE), "source": "vLLM v0.33.0"}}).files
    with pytest.raises(Refusal, match="as the recipe says"):
        loaded(tmp_path, **{"tool.jinja": {"sha256": text_sha256("else")}})


@pytest.mark.parametrize(
    "name",
    ["../tool.jinja", "/etc/passwd", "a/b.jinja", ".jinja", "id_rsa", "x.yaml", "-x.jinja", "a b.jinja", "x\n.jinja"],
)
def test_a_name_that_leaves_its_place_or_is_no_template_or_plugin_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refusal):
        loaded(tmp_path, **{name: {"text": "x"}})


def test_only_a_plain_file_beside_the_recipe_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sesame")
    (tmp_path / "link.jinja").symlink_to(secret)
    (tmp_path / "directory.jinja").mkdir()
    (tmp_path / "bytes.jinja").write_bytes(b"\xff\xfe")
    (tmp_path / "nul.jinja").write_bytes(b"a\0b")
    with (tmp_path / "large.jinja").open("wb") as file:
        file.truncate(own_files.LARGEST + 1)
    for name in ("link.jinja", "directory.jinja", "bytes.jinja", "nul.jinja", "large.jinja", "missing.jinja"):
        with pytest.raises(Refusal, match=name):
            loaded(tmp_path, **{name: {}})


def test_a_recipe_that_came_from_no_file_brings_its_texts_itself() -> None:
    assert recipe.parse({**RAW, "files": {"a.jinja": {"text": "x"}}}, where="x").files["a.jinja"].text == "x"
    with pytest.raises(Refusal, match=r"a\.jinja has no text"):
        recipe.parse({**RAW, "files": {"a.jinja": {}}}, where="x")
