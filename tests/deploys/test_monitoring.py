"""Files of the user that monitoring reads on this machine are named as in a deploy's settings: `~` counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.deploys import monitoring
from muster.errors import Refusal
from muster.spec import secret_files


def test_files_below_the_users_home_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_text("# of the group\nVLLM_API_KEY=abc123\n")
    (tmp_path / "routes.yml").write_text("route: {}\n")
    assert secret_files.bare_api_key("~/key") == "abc123"
    assert secret_files.bare_api_key(None) == ""
    assert monitoring._text("~/routes.yml") == "route: {}\n"
    with pytest.raises(Refusal, match=r"none\.yml"):
        monitoring._text("~/none.yml")
