"""`muster plan` as a user types it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from muster.cli import main
from muster.errors import Refusal
from muster.spec import inventory_source

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
    assert len(ran.stderr) < 300, "a right guess needs no list of seventy names"


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


def test_settings_are_found_from_another_directory_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("inventories", "group_data"):
        (tmp_path / name).mkdir()
    (tmp_path / "inventories/mine.py").write_text((ROOT / "inventories/h200-16.py").read_text())
    (tmp_path / "group_data/mine.py").write_text("port = 8123\n")
    (tmp_path / "elsewhere").mkdir()
    plans = {}
    for directory in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(directory)
        ran = muster_plan(str(tmp_path / "inventories/mine.py"))
        plans[directory] = json.loads(ran.stdout)
        assert plans[directory]["endpoint"] == "http://198.51.100.11:8123"
    assert plans[tmp_path]["digest"] == plans[tmp_path / "elsewhere"]["digest"]
    assert plans[tmp_path]["read"] == ["inventories/mine.py", "group_data/mine.py"]


def muster_plan(inventory: str) -> Result:
    return CliRunner().invoke(main, ["plan", inventory, "kimi-k2-instruct", "--format", "json"])


def test_pyinfra_from_a_directory_that_misses_settings_is_refused(tmp_path: Path) -> None:
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    for directory in (top / "inventories", top / "group_data", elsewhere):
        directory.mkdir(parents=True)
    (top / "inventories/mine.py").write_text('hosts = [("@local", {"gpu": "H200", "gpus": 8})]\n')
    (top / "group_data/all.py").write_text("port = 8123\n")
    pyinfra = Path(sys.executable).parent / "pyinfra"
    for script in ("kimi_k2_instruct", "stage_weights", "stop", "preflight"):
        command = [str(pyinfra), "-y", str(top / "inventories/mine.py"), str(ROOT / f"deploys/{script}.py")]
        command += ["--data", "_recipe=kimi-k2-instruct"]
        ran = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode != 0, script
        assert f"pyinfra has not read {top}/group_data" in ran.stderr + ran.stdout, script
    # The last of them reads only: this one run does reach its host, which is this machine.
    there = subprocess.run(command, cwd=top, capture_output=True, text=True, timeout=60, check=False)
    assert "has not read" not in there.stderr + there.stdout


def test_a_configuration_that_is_named_is_the_one_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mine.py", "config.py", "elsewhere/other.py", "elsewhere/sudo.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("hosts = ['a']\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    given = ["/usr/bin/pyinfra", "-y", "--data", "a=b", "../mine.py", "stop.py"]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(Refusal, match=r"has not read \S*config\.py"):
        inventory_source.require_all_read(inventory_source.load("../mine.py"))
    monkeypatch.setattr(sys, "argv", [*given, "--config", "sudo.py"])
    inventory_source.require_all_read(inventory_source.load("../mine.py"))
    monkeypatch.setattr(sys, "argv", ["/usr/bin/muster", *given[1:]])
    inventory_source.require_all_read(inventory_source.load("../mine.py"))


def test_without_a_recipe_every_group_has_a_row(muster) -> None:
    ran = muster("plan", "inventories/fleet.py")
    assert ran.exit_code == 0, ran.output
    rows = [line.split() for line in ran.stdout.splitlines()]
    named = {row[0]: row for row in rows if len(row) > 4 and row[-1].isalnum() and len(row[-1]) == 16}
    assert list(named) == ["kimi-a", "kimi-b", "llama", "gpt"]
    assert "kimi-k2 is served by kimi-a, kimi-b" in ran.stdout
    assert "kimi-k2: without kimi-a the other one runs 4,096 at once" in ran.stdout
    assert "gpu-4: llama has GPUs 0, 1, 2, 3; port 8000, control_port 29600" in ran.stdout
    assert "gpu-4: gpt has GPU 4; port 8001, control_port 29601" in ran.stdout


def test_json_of_a_fleet_holds_the_plan_that_each_group_has_alone(muster) -> None:
    fleet = json.loads(muster("plan", "inventories/fleet.py", "--format", "json").stdout)
    for name, plan in fleet["groups"].items():
        alone = json.loads(muster("plan", "inventories/fleet.py", "--group", name, "--format", "json").stdout)
        assert {**plan, "read": alone["read"]} == alone
    assert fleet["shared_hosts"] == {
        "gpu-4": {
            "llama": {"gpus": ["0", "1", "2", "3"], "ports": [8000, 29600]},
            "gpt": {"gpus": ["4"], "ports": [8001, 29601]},
        }
    }


def test_a_fleet_writes_the_files_of_every_group(muster, tmp_path: Path) -> None:
    assert muster("plan", "inventories/fleet.py", "--out", str(tmp_path)).exit_code == 0
    for host, group in (("gpu-0", "kimi-a"), ("gpu-2", "kimi-b"), ("gpu-4", "llama"), ("gpu-4", "gpt")):
        assert (tmp_path / host / "etc/muster" / group / "guard.json").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("inventories/h200-16.py",), "no group names its recipe"),
        (("inventories/fleet.py", "kimi-k2-instruct"), "several groups of that recipe: kimi-a"),
        (("inventories/fleet.py", "--group", "lama"), "did you mean 'llama'"),
    ],
)
def test_what_is_meant_must_be_clear(muster, words: tuple[str, ...], says: str) -> None:
    ran = muster("plan", *words)
    assert ran.exit_code == 2
    assert says in ran.stderr
