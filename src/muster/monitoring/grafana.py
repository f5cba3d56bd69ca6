"""The files of Grafana: dashboards as they are committed, and where it finds them and Prometheus. Pure.

`script/dashboards.py` makes the dashboards. They name no group: each has a list of what Prometheus knows.
"""

from __future__ import annotations

from typing import Any

import yaml

from muster import resources

DASHBOARDS = "/etc/grafana/muster"
"""Where Grafana reads them on its machine."""


def files() -> dict[str, str]:
    """Return every file by its path below /etc/grafana."""
    boards = sorted(resources.directory("dashboards").glob("*.json"))
    return {
        **{f"{DASHBOARDS.rpartition('/')[2]}/{path.name}": path.read_text(encoding="utf-8") for path in boards},
        "provisioning/dashboards/muster.yaml": _yaml(
            providers=[{"name": "muster", "folder": "muster", "type": "file", "options": {"path": DASHBOARDS}}]
        ),
        "provisioning/datasources/muster.yaml": _yaml(
            datasources=[
                {"name": "Prometheus", "type": "prometheus", "access": "proxy", "url": "http://127.0.0.1:9090"}
            ]
        ),
    }


def _yaml(**content: Any) -> str:
    return yaml.safe_dump({"apiVersion": 1, **content}, sort_keys=False)
