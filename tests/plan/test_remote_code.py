"""A model's own code is served at a commit, or not at all unless a setting says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from muster.commands.plan_text import as_json, as_text
from muster.plan.remote_code import unpinned
from tests.sample_plans import plan

COMMIT, MODEL = "a1" * 20, "org/model"
ON = "--trust-remote-code"


@pytest.mark.parametrize(
    ("argv", "model", "says"),
    [
        ([], MODEL, None),
        (["--revision", "main"], MODEL, None),
        ([ON], MODEL, "org/model runs its own code (--trust-remote-code) at no pinned revision"),
        (["--trust_remote_code"], MODEL, "at no pinned revision"),
        ([ON, "--no-trust-remote-code"], MODEL, None),
        ([ON, "--revision", COMMIT], MODEL, None),
        ([ON, f"--revision={COMMIT}"], MODEL, None),
        ([ON, "--revision", "main"], MODEL, "--revision main is no commit"),
        ([ON, "--revision=v1"], MODEL, "--revision v1 is no commit"),
        ([ON, "--revision", COMMIT[:39]], MODEL, "is no commit"),
        ([ON, "--revision", COMMIT.upper()], MODEL, "is no commit"),
        ([ON, "--revision", COMMIT, "--code_revision", "main"], MODEL, "--code-revision main is no commit"),
        ([ON, "--revision", COMMIT, "--tokenizer", "org/other"], MODEL, "the tokenizer org/other"),
        ([ON, "--revision", COMMIT, "--tokenizer", "org/other", "--tokenizer-revision", COMMIT], MODEL, None),
        ([ON, "--revision"], MODEL, "is no commit"),
        (["--trust-remote"], MODEL, "at no pinned revision"),
        (["--trust_r", "--no-trust"], MODEL, None),
        ([ON, "--revision", COMMIT, "--revisio", "main"], MODEL, "--revision main is no commit"),
        ([ON, "--revision", COMMIT, "--tokenizer-rev=v1"], MODEL, "--tokenizer-revision v1 is no commit"),
        ([ON, "--revision", COMMIT, "--hf-conf", "org/other"], MODEL, "--hf-config-path org/other"),
        ([ON, "--revision", COMMIT, "--speculative-c.model", "org/draft"], MODEL, "the draft model org/draft"),
        ([ON], "/var/lib/muster/weights/org--model/x", None),
        ([ON, "--tokenizer", "org/other"], "/srv/model", "the tokenizer org/other"),
    ],
)
def test_code_that_can_change_is_found(argv: Sequence[str], model: str, says: str | None) -> None:
    found = unpinned(["vllm", "serve", model, *argv], model)
    assert (found is None) if says is None else (found is not None and says in found)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"extra_args": [ON]},
        {"trust_remote_code": False, "extra_args": [ON]},
        {"model": "org/other"},
        {"extra_args": ["--revision", "main"]},
    ],
)
def test_a_plan_without_a_commit_is_shown_and_refused(settings: dict[str, Any]) -> None:
    p = plan("kimi-k2-instruct", 2, "H800", **settings)
    assert p.refused is not None
    assert "needed: a commit of 40 hexadecimal digits" in p.refused
    assert "muster pin kimi-k2-instruct" in p.refused
    assert as_json(p)["refused"] == p.refused
    assert "no deploy brings this plan to a host" in as_text(p)


@pytest.mark.parametrize(
    "settings", [{"revision": COMMIT}, {"model": "/srv/model"}, {"trust_remote_code": False}, {"drop_args": [ON]}]
)
def test_a_plan_whose_code_is_fixed_is_not_refused(settings: dict[str, Any]) -> None:
    assert plan("kimi-k2-instruct", 2, "H800", **settings).refused is None


def test_the_setting_that_lets_it_pass_is_said_in_the_plan() -> None:
    p = plan("kimi-k2-instruct", 2, "H800", allow_unpinned_code=True)
    assert p.refused is None
    assert any("allow_unpinned_code is set" in warning for warning in p.warnings)
    assert p.digest == plan("kimi-k2-instruct", 2, "H800").digest  # allowing changes nothing that runs
