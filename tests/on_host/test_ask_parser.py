"""The parser that is asked is the one in the release's own environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from muster.on_host import ask_parser, engine_stamps

pytestmark = pytest.mark.usefixtures("as_myself")

SERVE = """\
class Serve:
    name = "serve"

    def subparser_init(self, subparsers):
        parser = subparsers.add_parser("serve")
        parser.add_argument("model")
        parser.add_argument("--port", type=int)
        parser.add_argument("--auto", action="store_true")
        parser.add_argument("--template", type=str)
        return parser

    def validate(self, args):
        if args.auto:
            raise TypeError("--auto requires a parser")
        if args.template and "{" not in open(args.template).read():
            raise ValueError("no template: " + args.template)

def cmd_init():
    return [Serve()]
"""


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A virtual environment with a small vllm in it."""
    root = tmp_path / "opt/e"
    site = root / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    for package in ("vllm", "vllm/entrypoints", "vllm/entrypoints/cli", "vllm/utils"):
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").touch()
    (site / "vllm/entrypoints/cli/serve.py").write_text(SERVE)
    parser = "from argparse import ArgumentParser as FlexibleArgumentParser\n"
    (site / "vllm/utils/argparse_utils.py").write_text(parser)
    (root / "bin").mkdir()
    (root / "bin/python").symlink_to(sys.executable)
    (root / "bin/vllm").touch()
    (root / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    return tmp_path


def ask(root: Path, *argvs: list[str]) -> list[list[object]]:
    refused: list[list[object]] = ask_parser.main(
        {"root": str(root), "release": {"path": "/opt/e"}, "argvs": list(argvs)}
    )["refused"]
    return refused


GOOD = ["vllm", "serve", "m", "--port", "8000"]


def test_what_the_parser_takes_is_noted_for_this_engine(release: Path) -> None:
    assert ask(release, GOOD) == []
    assert engine_stamps.accepted(str(release), {"path": "/opt/e"}, [GOOD, ["vllm"]]) == [True, False]


def test_what_it_refuses_comes_with_its_own_words_and_no_note(release: Path) -> None:
    bad = [*GOOD, "--disable-log-requests"]
    assert ask(release, GOOD, bad, [*GOOD, "--auto"], ["vllm", "serve", "m", "--port", "many"]) == [
        [bad, "vllm: error: unrecognized arguments: --disable-log-requests"],
        [[*GOOD, "--auto"], "TypeError: --auto requires a parser"],
        [
            ["vllm", "serve", "m", "--port", "many"],
            "vllm serve: error: argument --port: invalid int value: 'many'",
        ],
    ]
    assert engine_stamps.accepted(str(release), {"path": "/opt/e"}, [bad]) == [False]


def test_files_that_a_command_line_names_need_not_be_on_the_host_yet(release: Path) -> None:
    path = str(release / "etc/muster/g/files/1/tool.jinja")
    request = {"root": str(release), "release": {"path": "/opt/e"}, "argvs": [[*GOOD, "--template", path]]}
    assert ask_parser.main({**request, "files": {path: "{{ messages }}"}}) == {"refused": []}
    ((_, error),) = ask_parser.main({**request, "files": {path: "words"}})["refused"]
    assert error == f"ValueError: no template: {path}"
    ((_, error),) = ask_parser.main(request)["refused"]
    assert error.startswith("FileNotFoundError")
    assert not (release / "etc").exists()


def test_what_the_plan_decides_is_read_the_same_whatever_the_spelling(release: Path) -> None:
    def refused(*words: str) -> list[list[object]]:
        request = {"argvs": [[*GOOD, *words]], "decided": [GOOD], "dests": ["port", "unknown"]}
        answer: list[list[object]] = ask_parser.main({"root": str(release), "release": {"path": "/opt/e"}, **request})[
            "refused"
        ]
        return answer

    assert refused() == []
    assert refused("--po", "9000") == [[[*GOOD, "--po", "9000"], "--port is 9000, and the plan decides 8000"]]


def test_an_engine_that_does_not_import_says_why(release: Path) -> None:
    broken = next(release.glob("opt/e/lib/*/site-packages/vllm/__init__.py"))
    broken.write_text("raise ImportError('libcudart.so.13: cannot open shared object file')\n")
    with pytest.raises(OSError, match=r"the vLLM in /opt/e does not import:(.|\n)*libcudart\.so\.13"):
        ask(release, GOOD)
