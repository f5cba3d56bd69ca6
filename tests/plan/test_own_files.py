"""A recipe's own files in the plan: on every host, in command line and digest, and only where a flag names them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from muster.errors import Refusal
from muster.plan import own_files
from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.spec import recipe
from muster.spec.settings import Settings
from tests.plan.test_recipe_layers import RAW
from tests.sample_plans import engine_flags, hosts

FILES = {"tool.jinja": {"text": "{{ messages }}"}, "parser.py": {"text": "x = 1\n"}}


def planned(flags: dict[str, Any], files: dict[str, Any] | None = None, count: int = 1, **settings: Any) -> Plan:
    raw = copy.deepcopy(RAW) | {"files": FILES if files is None else files}
    raw["features"]["own"] = {"flags": flags}
    raw["strategies"]["tp-hosts"] = {"about": "x", "sizes": {"tp": "all"}}
    given = {"strategy": "tp" if count == 1 else "tp-hosts", "features": {"own": True}, **settings}
    return build_plan(recipe.parse(raw, where="x"), hosts(count, "H200"), Settings(**given))


def test_the_file_is_on_every_host_readable_and_named_by_its_path() -> None:
    plan = planned({"chat-template": "tool.jinja"}, count=2)
    for name, host in plan.hosts.items():
        (path,) = own_files.placed(plan, name)
        assert engine_flags(plan, name)["chat-template"] == path
        assert (host.files[path].text, host.files[path].mode) == ("{{ messages }}", "644")
        assert path.startswith(f"/etc/muster/{plan.group}/files/")
    assert any("tool.jinja comes with the recipe, SHA-256 " in note for note in plan.warnings)


def test_another_text_is_another_digest_and_another_command_line() -> None:
    one = planned({"chat-template": "tool.jinja"})
    other = planned({"chat-template": "tool.jinja"}, {"tool.jinja": {"text": "{{ other }}"}})
    assert one.digest != other.digest
    assert one.head.processes[-1].argv != other.head.processes[-1].argv


def test_what_no_flag_names_is_not_brought() -> None:
    plan = planned({"chat-template": "tool.jinja"}, features={"own": False})
    assert own_files.placed(plan, plan.head.name) == []
    assert plan.digest == planned({"chat-template": "tool.jinja"}, {}, features={"own": False}).digest
    assert plan.warnings == planned({}, {}, features={"own": False}).warnings


def test_a_plugin_is_code_and_needs_the_word_for_it() -> None:
    plan = planned({"tool-parser-plugin": "parser.py"}, allow_unpinned_code=True)
    assert any(
        "parser.py comes with the recipe" in note and "code that the engine runs" in note for note in plan.warnings
    )
    with pytest.raises(Refusal, match="is code that the engine would run"):
        planned({"tool-parser-plugin": "parser.py"}, trust_remote_code=False)


@pytest.mark.parametrize("value", ["examples/tool.jinja", "else.jinja", "../tool.jinja"])
def test_a_template_that_no_host_has_is_refused(value: str) -> None:
    with pytest.raises(Refusal, match="is no file of recipe layers"):
        planned({"chat-template": value})
    assert engine_flags(planned({"chat-template": "/srv/tool.jinja"}))["chat-template"] == "/srv/tool.jinja"
    assert engine_flags(planned({"chat-template": "{{ messages }}"}))["chat-template"] == "{{ messages }}"
