"""`muster plan` as a user types it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from muster.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def muster(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, words)

    return run


def test_json_is_what_scripts_read(muster) -> None:
    ran = muster("plan", "inventories/h200-16.py", "kimi-k2-instruct", "--format", "json")
    assert ran.exit_code == 0
    plan = json.loads(ran.stdout)
    assert (plan["group"], plan["strategy"], plan["label"]) == ("kimi-k2-instruct", "dp-ep", "DP16+EP")
    host = plan["hosts"]["h200-0"]
    assert (host["role"], host["node_rank"], host["gpus"]) == ("head", 0, 8)
    assert host["processes"][0]["argv"][:2] == ["vllm", "serve"]
    assert plan["order"] == [["h200-0:vllm", "h200-1:vllm"]]
    assert all({"mode", "text"} <= set(file) for file in host["files"].values())


def test_out_writes_every_file_with_its_mode(muster, tmp_path: Path) -> None:
    ran = muster("plan", "inventories/h800-16.py", "kimi-k2-instruct", "--out", str(tmp_path), "--format", "json")
    plan = json.loads(ran.stdout)
    for name, host in plan["hosts"].items():
        for path, file in host["files"].items():
            written = tmp_path / name / path.lstrip("/")
            assert written.read_text() == file["text"]
            assert stat.S_IMODE(written.stat().st_mode) == int(file["mode"], 8)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("inventories/h200-61.py", "kimi-k2-instruct"), "no inventory file"),
        (("inventories/h200-16.py", "kimi-k2"), "did you mean 'kimi-k2-"),
        (("inventories/h200-16.py", "kimi-k2-instruct", "--strategy", "tp"), "unknown strategy 'tp'"),
        (("inventories/h200-16.py", "kimi-k2-instruct", "--data", "prot=1"), "did you mean 'port'"),
        (("inventories/h200-16.py", "kimi-k2-instruct", "--data", "port"), "name=value"),
    ],
)
def test_bad_input_exits_with_2_and_no_traceback(muster, words: tuple[str, ...], says: str) -> None:
    ran = muster("plan", *words)
    assert ran.exit_code == 2
    assert says in ran.stderr
    assert "Traceback" not in ran.output


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('hosts = ["a", "b", ("a", {"gpus": 8})]', "host a is listed more than once"),
        ('hosts = [("a", {"gpus": 8})]', "a has no 'gpu'"),
        ('hosts = [("a", {"gpu": "H200", "gpus": 8})]', "a has no address of its own"),
        ('hosts = [("192.0.2.1", {"gpu": "H200", "gpus": "8"})]', "gpus is '8'"),
        ("hosts = [", "cannot be read"),
        ("hosts = []", "has no hosts"),
    ],
)
def test_a_broken_inventory_is_refused_in_words(muster, tmp_path: Path, body: str, says: str) -> None:
    (tmp_path / "mine.py").write_text(body)
    ran = muster("plan", str(tmp_path / "mine.py"), "kimi-k2-instruct")
    assert ran.exit_code == 2
    assert says in ran.stderr
