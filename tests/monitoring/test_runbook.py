"""The runbook has one section an alert, and each row of the fault matrix the alert that names it."""

from __future__ import annotations

import re
from pathlib import Path

from muster.monitoring.rules import ALERTS
from tests.faults.edge_matrix import EDGE_MATRIX
from tests.faults.matrix import MATRIX

from .matrix_alerts import TOLD

DOCS = Path(__file__).parents[2] / "docs"
NAMES = [alert.name for alert in ALERTS]


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_alert_has_its_section() -> None:
    found = sections((DOCS / "runbook.md").read_text())
    assert [name for name in found if name.startswith("Muster")] == NAMES
    for name in NAMES:
        for heading in ("**Means.**", "**Look.**", "**Do.**"):
            assert heading in found[name], f"{name} has no {heading}"


def test_every_row_of_the_fault_matrix_names_its_alert() -> None:
    table = sections((DOCS / "monitoring.md").read_text())["Faults and alerts"]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.M)
    named = {fault: alert for fault, alert in rows if fault not in ("fault", "---")}
    titles = {fault.key: fault.row for fault in MATRIX}
    assert {*titles.values()} <= set(named), {*titles.values()} - set(named)
    for key, title in titles.items():
        alerts = re.findall(r"`(Muster\w+)`", named[title])
        assert alerts or named[title].startswith("none"), title
        assert set(alerts) <= set(NAMES), title
        if key in TOLD:
            assert {name for name, _ in TOLD[key].must} <= set(alerts), key


def test_every_row_of_the_edges_faults_names_its_alert() -> None:
    for fault in EDGE_MATRIX:
        alerts = re.findall(r"`(Muster\w+)`", fault.alert)
        assert set(alerts) <= set(NAMES), fault.key
        assert alerts or fault.alert.startswith("none: "), fault.key
