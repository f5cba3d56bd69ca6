"""The committed dashboards are what their builders make, and each panel says what it shows and asks something."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BOARDS = {path.name: json.loads(path.read_text()) for path in sorted((ROOT / "dashboards").glob("*.json"))}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


@pytest.fixture
def sdk() -> None:
    """Skip, or fail where CI needs it, without Grafana's foundation SDK: its types are Grafana's schema."""
    try:
        import grafana_foundation_sdk  # noqa: F401
    except ImportError:
        if os.environ.get("MUSTER_REQUIRE_SANDBOX") == "1":
            raise
        pytest.skip("the builders need Python 3.11")


def lost(given: Any, kept: Any, at: str = "") -> list[str]:
    """Return the places of what is not kept as it was given; what was added is no loss."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [place for key, value in given.items() for place in lost(value, kept.get(key), f"{at}.{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        pairs = zip(given, kept, strict=True)
        return [place for number, (one, other) in enumerate(pairs) for place in lost(one, other, f"{at}[{number}]")]
    return [] if given == kept else [at]


def read_back(board: dict[str, Any]) -> dict[str, Any]:
    """Read a dashboard with the schema's types and write it again: a field that they do not know is lost."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    found: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(board)))
    return found


def test_they_are_as_their_builders_make_them(sdk: None) -> None:
    assert runpy.run_path(str(ROOT / "script" / "dashboards.py"))["every"]() == BOARDS


@pytest.mark.parametrize("name", BOARDS)
def test_grafana_s_own_types_read_them_and_lose_nothing(sdk: None, name: str) -> None:
    assert lost(BOARDS[name], read_back(BOARDS[name])) == []


def test_a_field_that_grafana_does_not_know_is_found(sdk: None) -> None:
    board = json.loads(json.dumps(BOARDS["fleet.json"]))
    panels(board)[0]["targets"][0]["expression"] = "muster_ready"
    assert lost(board, read_back(board)) == [".panels[1].targets[0].expression"]
    panels(board)[0]["options"] = None
    with pytest.raises(TypeError):
        read_back(board)


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_has_a_title_words_and_queries(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == f"muster-{name.removesuffix('.json')}"
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles) > 3
    for panel in panels(board):
        assert panel["description"], panel["title"]
        assert [target["refId"] for target in panel["targets"]] == list("ABC"[: len(panel["targets"])])
