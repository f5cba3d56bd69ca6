"""A recipe from elsewhere: its text becomes no directive, no path and no end of the process that reads it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from muster import resources
from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.spec import recipe
from muster.spec.settings import Settings
from tests import sample_plans
from tests.attacks.test_settings import hostile, hostile_text, readable, same_directives

RAW = yaml.safe_load((resources.directory("recipes") / "kimi-k2-thinking.yaml").read_text())


def changed(path: tuple[str, ...], value: object) -> dict[str, Any]:
    raw = copy.deepcopy(RAW)
    current = raw
    for key in path[:-1]:
        current = current[key]
    current[path[-1]] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("title",), "Kimi\nExecStartPre=+/bin/sh -c id", "title"),
        (("title",), "Kimi\\", "title"),
        (("title",), "Kimi\u2028User=root", "title"),
        (("name",), "../../../etc/x", "name"),
        (("name",), "a/b", "name"),
        (("name",), "", "name"),
        (("name",), "x\n", "name"),
        (("model",), "--trust-remote-code", "model"),
        (("model",), "org/../../etc", "model"),
        (("revision",), "main", "revision"),
        (("flags",), {"x --y": 1}, "flags"),
        (("flags",), {"quantization": "fp8\nUser=root"}, "flags"),
        (("strategies", "tp", "served_model_name"), "a b", "served_model_name"),
        (("strategies", "tp", "about"), "\x1b[2J", "about"),
        (("bench", "h200", "about"), "\x1b]0;x\x07", "about"),
    ],
)
def test_text_that_would_leave_its_place_is_refused_with_its_key(
    path: tuple[str, ...], value: object, says: str
) -> None:
    with pytest.raises(Refusal, match=says) as refusal:
        recipe.parse(changed(path, value), where="r.yaml")
    assert all(line.isprintable() for line in str(refusal.value).split("\n"))


KEYS = [
    *[(key,) for key in RAW],
    ("strategies", "tp", "flags"),
    ("strategies", "tp", "served_model_name"),
    ("strategies", "tp", "about"),
    ("features", "reasoning", "flags"),
    ("shape", "hidden_size"),
    ("shape", "expert_bits"),
    ("defaults", "any"),
    ("flags", "some-flag"),
]


@pytest.mark.parametrize("path", KEYS, ids=".".join)
@given(value=st.one_of(hostile, hostile_text, st.dictionaries(hostile_text, hostile_text, max_size=3)))
@hypothesis.example(value="\u1680")  # a blank that shows as a dash, or as nothing
@hypothesis.settings(suppress_health_check=list(hypothesis.HealthCheck))
def test_any_value_of_any_key_is_refused_or_planned(path: tuple[str, ...], value: object) -> None:
    try:
        made = recipe.parse(changed(path, value), where="r.yaml")
        plan = build_plan(made, sample_plans.hosts(1, "H200"), Settings())
    except Refusal as refusal:
        readable(refusal)
        return
    same_directives(plan)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 400_000,
        "a: " * 50_000,
        "{" * 300_000 + "}" * 300_000,
        "a: &a [x]\nb: [*a, *a]\n",
        "\n".join(["a0: &a0 [x]", *[f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]]),
        "name: 2026-99-99T00:00:00\n",
        "name: !!python/object/apply:os.system [id]\n",
        "? [a, b]\n: c\n",
        "1: 2\n",
        "\x00",
        "x" * (1 << 21),
    ],
    ids=[
        "deep list",
        "deep key",
        "deep map",
        "alias",
        "aliases",
        "date",
        "object",
        "list key",
        "number key",
        "nul",
        "long",
    ],
)
def test_yaml_that_no_parser_should_build_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(Refusal) as refusal:
        recipe.load(str(file))
    assert len(str(refusal.value)) < 5000


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"name: \xc3\x28\n"])
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(data)
    with pytest.raises(Refusal, match=r"r\.yaml"):
        recipe.load(str(file))
