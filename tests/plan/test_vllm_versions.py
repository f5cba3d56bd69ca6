"""Flags that a version of vLLM takes otherwise than a recipe spells them."""

from __future__ import annotations

import pytest

from muster.plan import vllm_versions


@pytest.mark.parametrize(
    ("written", "version", "taken"),
    [
        ('{"use_inductor": false}', "0.33.0", '{"backend": "eager"}'),
        ('{"use_inductor": true, "mode": 3}', "0.12.0", '{"backend": "inductor", "mode": 3}'),
        ('{"use_inductor": false}', "0.11.0", '{"use_inductor": false}'),
        ('{"mode": 3}', "0.33.0", '{"mode": 3}'),
        ("3", "0.33.0", "3"),
        ("{", "0.33.0", "{"),
    ],
)
def test_the_inductor_is_a_backend_from_0_12_on(written: str, version: str, taken: str) -> None:
    spoken, notes = vllm_versions.translate({"compilation-config": written}, version)
    assert spoken == {"compilation-config": taken}
    assert bool(notes) is (taken != written)
