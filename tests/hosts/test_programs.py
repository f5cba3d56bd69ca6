"""Programs on standard input: nothing of a request reaches a command line, and one failure hides no other answer."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from muster.hosts import programs


def through_shell(program: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {"PATH": path} if path is not None else None
    return subprocess.run(["/bin/sh", "-c", programs.COMMAND], input=program, env=env, capture_output=True, text=True)


def test_programs_answer_together() -> None:
    program = programs.bundle(
        {"probe_group": {"files": {"/etc/hostname": "x"}}, "place_files": {"do": "stage", "files": []}}
    )
    told = programs.answers(through_shell(program).stdout.splitlines())
    assert told["place_files"] == {"changed": [], "notes": []}
    assert told["probe_group"]["python"]


def test_one_that_fails_leaves_the_others_alone() -> None:
    program = programs.bundle({"place_files": {"do": "nonsense"}, "probe_group": {}})
    told = programs.answers(through_shell(program).stdout.splitlines())
    assert told["place_files"] == {"error": "KeyError: 'nonsense'"}
    assert told["probe_group"]["python"]


def test_a_request_survives_quotes_newlines_and_other_alphabets() -> None:
    path = '/nowhere/it\'s "quoted"\n\\ and ünïcödé 中'
    program = programs.bundle({"probe_group": {"files": {path: "0"}}})
    told = programs.answers(through_shell(program).stdout.splitlines())
    assert told["probe_group"]["files"] == {path: {"kind": "missing"}}


def test_the_command_line_holds_nothing_of_the_request() -> None:
    assert "sesame" in programs.bundle({"probe_group": {"group": "sesame"}})
    assert "probe_group" not in programs.COMMAND


@pytest.mark.parametrize(
    "path", sorted(Path(programs.__file__).parents[1].glob("on_host/*.py")), ids=lambda path: path.stem
)
def test_every_host_module_that_a_program_imports_travels_with_it(path: Path) -> None:
    imported = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "muster.on_host":
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("muster.on_host."):
            imported.add(str(node.module).removeprefix("muster.on_host."))
    assert set(programs._imports(path.read_text())) == imported


def test_banners_of_a_login_shell_are_not_the_answer() -> None:
    lines = ["Welcome to {fleet}", "", '{"probe_group": {"uid": 0}}', "logout"]
    assert programs.answers(lines) == {"probe_group": {"uid": 0}}


def test_no_answer_says_what_came_instead() -> None:
    with pytest.raises(ValueError, match="last line was: bash: fork: no memory"):
        programs.answers(["bash: fork: no memory", ""])


def test_a_host_without_a_new_enough_python_says_so(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.6.8\nexit 1\n')
    old.chmod(0o755)
    for tool in ("sh", "cat", "head", "tr"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}")
    done = through_shell(programs.bundle({"probe_group": {}}), path=str(tmp_path))
    with pytest.raises(ValueError, match=r"found Python 3\.6\.8; needed: .*3\.9.*; fix: install"):
        programs.answers(done.stdout.splitlines())


def test_a_newer_python_beside_an_old_one_is_used(tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    (tmp_path / "python3.11").symlink_to(sys.executable)
    done = through_shell(
        programs.bundle({"place_files": {"do": "stage", "files": []}}), path=f"{tmp_path}:/usr/bin:/bin"
    )
    assert programs.answers(done.stdout.splitlines())["place_files"] == {"changed": [], "notes": []}


def test_a_program_that_breaks_off_is_not_given_to_the_next_python(tmp_path: Path) -> None:
    for name in ("python3", "python3.11"):
        (tmp_path / name).symlink_to(sys.executable)
    done = through_shell("import sys\nprint('half', flush=True)\nraise KeyError('gone')\n", f"{tmp_path}:/usr/bin:/bin")
    assert (done.returncode, done.stdout) == (3, "half\n")
    assert done.stderr.strip().splitlines()[-1] == "KeyError: 'gone'"


def test_an_empty_program_is_nobodys() -> None:
    with pytest.raises(ValueError, match="needed: a complete python3"):
        programs.answers(through_shell("").stdout.splitlines())


def test_a_streaming_program_prints_lines_and_ends_with_its_error() -> None:
    done = through_shell(programs.bundle({"place_files": {"do": "stage", "files": [{}]}}, streams=True))
    assert done.returncode == 3
    assert done.stderr.strip() == "KeyError: 'path'"
    assert done.stdout == ""


def test_what_a_program_prints_does_not_spoil_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def main(request):\n    print('{\"state\": 1}')\n    return {'said': request['word']}\n"
    monkeypatch.setattr(programs, "_with_imports", lambda names: {"chatty": text})
    done = through_shell(programs.bundle({"chatty": {"word": "yes"}}))
    assert programs.answers(done.stdout.splitlines()) == {"chatty": {"said": "yes"}}
    assert '{"state": 1}' in done.stderr


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(programs.__file__).parents[1].glob("on_host/*.py")))
def test_host_programs_import_the_standard_library_only(name: str) -> None:
    if name == "__init__":
        return
    tree = ast.parse(programs.source(name), feature_version=(3, 9))
    for node in tree.body:  # a function may import what the engine's own environment has
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [str(node.module)]
        else:
            continue
        for module in modules:
            assert module.startswith("muster.on_host") or module.split(".")[0] in sys.stdlib_module_names
