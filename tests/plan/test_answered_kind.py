"""What a recipe says that its model answers: in the plan, in guard.json, and in what every host is asked."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from muster.commands.plan_text import as_json, as_text
from muster.deploys import summary, verify
from muster.errors import Refusal
from muster.guard import config
from muster.guard.endpoint_kinds import COMPLETIONS, KINDS
from muster.plan import guard_files, manifest
from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.spec import recipe
from muster.spec.settings import Settings
from tests.plan.test_recipe_layers import RAW
from tests.sample_plans import hosts

OTHERS = [name for name in KINDS if name != COMPLETIONS]
REPLICAS = {"about": "x", "sizes": {"tp": 1, "dp": "all"}}


def planned(endpoint: str | None, *, strategy: str = "tp", **settings: Any) -> Plan:
    raw = copy.deepcopy(RAW) | ({} if endpoint is None else {"endpoint": endpoint})
    raw["strategies"]["replicas"] = REPLICAS
    return build_plan(recipe.parse(raw, where="x"), hosts(1, "H200"), Settings(strategy=strategy, **settings))


@pytest.mark.parametrize("endpoint", OTHERS)
def test_guard_verify_and_summary_ask_what_the_model_answers(endpoint: str) -> None:
    plan, kind = planned(endpoint), KINDS[endpoint]
    guard_json = config.parse(plan.head.files[guard_files.config_path(plan.group)].text)
    assert guard_json.kind is kind
    asked = verify.what_answers(plan, plan.head)
    assert (asked["question"]["path"], asked["tool_calling"]) == (kind.path, None)
    assert f"{kind.path} -H" in summary.text(plan)
    assert f"answers {endpoint}" in as_text(plan)
    assert as_json(plan)["endpoint_kind"] == endpoint
    assert json.loads(plan.head.files[manifest.path(plan.group)].text)["endpoint_kind"] == endpoint


def test_completions_are_the_default_and_leave_every_file_as_it_was() -> None:
    said, silent = planned(COMPLETIONS), planned(None)
    assert said == silent
    assert "endpoint_kind" not in as_json(silent)
    for path in (guard_files.config_path(silent.group), manifest.path(silent.group)):
        assert "endpoint_kind" not in silent.head.files[path].text
    assert verify.what_answers(silent, silent.head)["tool_calling"] is True
    assert "/v1/chat/completions" in summary.text(silent)


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(Refusal, match="unknown endpoint 'embedings'; did you mean 'embeddings'"):
        planned("embedings")


@pytest.mark.parametrize("words", [["--runner", "pooling"], ["--runner=pooling"], ["--runn", "pooling"]])
def test_an_engine_that_answers_no_completions_is_refused_before_its_guard_waits_for_ever(words: list[str]) -> None:
    with pytest.raises(Refusal, match="says that the model answers completions"):
        planned(None, extra_args=words)
    assert planned("embeddings", extra_args=words).head.processes[-1].argv[-len(words) :] == tuple(words)
    with pytest.raises(Refusal, match="drop --runner generate"):
        planned("scoring", extra_args=["--runner", "generate"])


def test_ranks_that_no_request_can_be_sent_to_are_in_the_notes() -> None:
    words = "the engine chooses which DP rank answers /v1/embeddings"
    assert any(words in note for note in planned("embeddings", strategy="replicas").warnings)
    assert not any(words in note for note in planned("embeddings").warnings)
    assert not any("the engine chooses" in note for note in planned(None, strategy="replicas").warnings)
