"""The head's pages and the fleet's in a real browser, judged by axe-core: contrast, keyboard, widths, hostile text."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from muster.guard.page_style import STYLE
from muster.guard.status_page import page
from tests import required
from tests.edge.live import Engine, LiveEdge

pytestmark = pytest.mark.nightly

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
AXE = Path(__file__).parents[2] / ".venv" / "axe" / "axe.min.js"


@pytest.fixture
def chromium() -> str:
    """Return Chromium. Without it or axe-core the tests are skipped, or fail where they are required."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    missing = [
        *([] if found else ["no Chromium (apt-get install chromium)"]),
        *([] if AXE.is_file() else ["no axe-core (script/setup brings it where there is npm)"]),
    ]
    if missing:
        required.lacking(f"there is {' and '.join(missing)}", "MUSTER_REQUIRE_BROWSER")
    return str(found)


def test_no_view_of_any_page_has_a_problem(chromium: str, tmp_path: Path) -> None:
    script = BENCHMARKS / "page_views.py"
    command = [sys.executable, script, "--out", tmp_path, "--axe", AXE, "--chromium", chromium]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "32 views checked, 0 with a problem" in ran.stdout
    assert all(path.stat().st_size > 10_000 for path in tmp_path.glob("*.png"))
    assert len(list(tmp_path.glob("*.png"))) == 32


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("--quiet:#4d555f", "--quiet:#b0b0b0", "color-contrast"),
        ("a:focus-visible{outline:3px solid var(--link)", "a:focus{outline:none", "focus not seen"),
        ("overflow-wrap:anywhere", "white-space:nowrap", "wider than the window"),
    ],
)
def test_a_bad_style_is_seen(
    chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, problem: str
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    problems = runpy.run_path(str(BENCHMARKS / "page_views.py"))["problems"]
    text = page({"phase": "gather", "group": "g", "reason": "a host is not joined yet " + "A" * 200}, 0.0)
    assert old in STYLE
    (tmp_path / "page.html").write_text(text.replace(old, new))
    found = problems(chromium, (tmp_path / "page.html").as_uri(), 390, 1, AXE.read_text())
    assert any(problem in line for line in found), found
    (tmp_path / "page.html").write_text(text)
    assert problems(chromium, (tmp_path / "page.html").as_uri(), 390, 1, AXE.read_text()) == []


def test_the_fleets_page_has_no_problem(chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    views = runpy.run_path(str(BENCHMARKS / "page_views.py"))
    engines = Engine("a"), Engine("b")
    engines[1].ready = False
    hostile = "org/<script>document.title=1</script>%[hostname]" + "A" * 200
    try:
        with LiveEdge(tmp_path, {"a": ("m", list(engines)), "b": (hostile, [engines[1]])}) as edge:
            edge.wait(lambda: b">down</span>" in edge.operators("/").body)
            url = f"http://127.0.0.1:{edge.monitor_port}/"
            for width in views["WIDTHS"]:
                for scheme in views["SCHEMES"].values():
                    assert views["problems"](chromium, url, width, scheme, AXE.read_text()) == []
    finally:
        for engine in engines:
            engine.close()
