"""A draft model runs its own code as the main model does, and is held to a commit (reported: vllm-ascend#8820)."""

from __future__ import annotations

import json

import pytest

from muster.errors import Refusal
from muster.plan.remote_code import draft, unpinned
from tests.sample_plans import plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EAGLE = {"method": "eagle3", "model": "example-org/kimi-k2-eagle3", "num_speculative_tokens": 3}


def test_a_draft_at_no_commit_is_refused_though_the_target_is_pinned() -> None:
    made = plan("kimi-k2-instruct", 2, "H200", revision=COMMIT, extra_args=["--speculative-config", json.dumps(EAGLE)])
    assert made.refused is not None
    assert "the draft model example-org/kimi-k2-eagle3 runs its own code" in made.refused
    assert "give its revision in --speculative-config" in made.refused


@pytest.mark.parametrize(
    "words",
    [
        ["--speculative-config", json.dumps({**EAGLE, "revision": COMMIT})],
        [f"--speculative_config={json.dumps({**EAGLE, 'model': '/srv/draft'})}"],
        ["--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3}'],
    ],
)
def test_a_draft_that_is_fixed_passes(words: list[str]) -> None:
    assert plan("kimi-k2-instruct", 2, "H200", revision=COMMIT, extra_args=words).refused is None


@pytest.mark.parametrize(
    "words",
    [
        ["--speculative-config.model", "org/d"],
        ["--speculative_config.model=org/d"],
        ["-sc", '{"model": "org/d"}'],
        ["-sc.model=org/d"],
    ],
)
def test_every_spelling_is_read(words: list[str]) -> None:
    found = draft(["vllm", "serve", "m", *words])
    assert found is not None
    assert found.model == "org/d"


def test_a_configuration_from_elsewhere_counts() -> None:
    argv = ["vllm", "serve", "m", "--trust-remote-code", "--revision", COMMIT, "--hf-config-path", "org/other"]
    assert "--hf-config-path org/other" in (unpinned(argv, "org/model") or "")


def test_a_draft_from_the_hub_is_refused_where_the_engine_is_offline() -> None:
    words = ["--speculative-config", json.dumps({**EAGLE, "revision": COMMIT})]
    with pytest.raises(Refusal, match=r"(?s)the engine is offline.*a directory that every host has"):
        plan("kimi-k2-instruct", 2, "H200", model="/srv/k2", offline=True, extra_args=words)


def test_the_plan_says_that_a_draft_is_in_no_memory_table() -> None:
    words = ["--speculative-config", json.dumps({**EAGLE, "revision": COMMIT})]
    made = plan("kimi-k2-instruct", 2, "H200", revision=COMMIT, extra_args=words)
    assert any("in no memory table" in warning for warning in made.warnings)
