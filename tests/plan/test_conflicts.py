"""Groups whose names would make their directories somebody else's."""

from __future__ import annotations

from typing import Any

import pytest

from muster.errors import Refusal
from tests.sample_plans import plan


@pytest.mark.parametrize(
    ("name", "settings", "other"),
    [
        ("hf", {}, "hf_home is /var/lib/muster/hf"),
        ("weights", {}, "weights_root is /var/lib/muster/weights"),
        ("uv", {}, "/var/cache/muster/uv"),
        ("accepted", {}, "/var/lib/muster/accepted"),
        ("repaired", {}, "/etc/muster/repaired"),
        ("k2", {"hf_home": "/var/lib/muster/k2/cache"}, "hf_home is /var/lib/muster/k2/cache"),
    ],
)
def test_a_group_may_not_be_called_what_another_directory_is(name: str, settings: dict[str, Any], other: str) -> None:
    with pytest.raises(Refusal, match=f"a group called {name} has .*{other}"):
        plan("kimi-k2-instruct", 2, "H200", group=name, **settings)


def test_a_directory_above_the_groups_is_nobodys_name() -> None:
    assert plan("kimi-k2-instruct", 2, "H200", group="k2", root="/var/lib/muster/engines").group == "k2"
