"""A path that the unit hides from the engine is refused in the plan (reported: lemonade#1864, ollama#2701)."""

from __future__ import annotations

import pytest

from muster.errors import Refusal
from muster.plan.visible_paths import hidden_by
from tests.sample_plans import plan


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "/home/ops/models/k2"},
        {"model": "/root/k2"},
        {"hf_home": "/home/ops/.cache/huggingface"},
        {"extra_args": ["--chat-template", "/tmp/template.jinja"]},
        {"extra_args": ["--tool-parser-plugin=/var/tmp/x.py"]},
        {"extra_args": ["--lora-modules", "one=/home/ops/lora"]},
        {"extra_args": ["--speculative-config", '{"method": "eagle3", "model": "/srv/../home/ops/draft"}']},
        {"extra_env": {"OUTLINES_CACHE_DIR": "/run/user/1000/x"}},
        {"ssl_cert_file": "/root/ca.pem"},
        {"engine_path": "/home/ops/venv"},
    ],
)
def test_a_hidden_path_is_refused_with_where_to_put_it(settings: dict[str, object]) -> None:
    with pytest.raises(Refusal, match=r"(?s)is below /(home|root|run/user|tmp|var/tmp): .*fix: +move or copy it below"):
        plan("kimi-k2-instruct", 2, "H200", **settings)


@pytest.mark.parametrize("path", ["/srv/models", "/homes/x", "/tmpfs/x", "relative/home", "/data/home/x", "/"])
def test_others_pass(path: str) -> None:
    assert hidden_by(path) is None


def test_a_model_on_a_disk_of_its_own_passes() -> None:
    plan("kimi-k2-instruct", 2, "H200", model="/srv/models/k2", extra_args=["--chat-template", "/srv/t.jinja"])
