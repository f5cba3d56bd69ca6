"""One deploy through pyinfra's phases: asks before it stops what serves, quiet where nothing changes, four statuses."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyinfra
import pytest
from pyinfra.api.command import FunctionCommand
from pyinfra.api.exceptions import DeployError

from muster.errors import Refusal
from muster.hosts import deploy_run, operations
from muster.hosts.deploy_run import DONE, FAILED, INTERRUPTED, run_deploy
from muster.hosts.pyinfra_types import current_host, stage
from muster.hosts.run_options import RunOptions
from muster.hosts.run_words import REFUSED, words
from muster.hosts.say import say


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """This machine as the only host, and settings above the inventory."""
    (tmp_path / "inventories").mkdir()
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data/all.py").write_text("colour = 'red'\n")
    (tmp_path / "config.py").write_text("from pyinfra import config\nconfig.RETRY_DELAY = 77\n")
    (tmp_path / "inventories/mine.py").write_text("hosts = [('@local', {'gpu': 'H200', 'gpus': 1})]\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return "../inventories/mine.py"


class Work:
    """A deploy of one operation that changes something, unless told otherwise."""

    def __init__(self, result: bool = True, *, changes: bool = True, question: str = "") -> None:
        self.result, self.changes, self.question = result, changes, question
        self.ran: list[dict[str, Any]] = []

    @stage("Work")
    def _stage(self) -> None:
        command = FunctionCommand(self._do, [], {}) if self.changes else None
        operations.carried_out(command, name="it is done")

    def __call__(self) -> None:
        say(current_host(), "about to work")
        if self.question:
            words.ask(self.question)
        words.done("all is well")
        self._stage()

    def _do(self, state: Any, host: Any) -> bool:
        self.ran.append({"colour": host.data.colour, "delay": state.config.RETRY_DELAY, "diff": state.config.DIFF})
        return self.result


def run(inventory: str, work: Callable[[], None], **options: bool) -> int:
    return run_deploy(inventory, {}, work, RunOptions(**options), recipe="r")


def test_it_runs_with_the_settings_of_the_inventory_from_any_directory(
    inventory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work()
    assert run(inventory, work, diff=True) == DONE
    assert work.ran == [{"colour": "red", "delay": 77, "diff": True}]
    assert capsys.readouterr().err.splitlines() == [
        "[@local] about to work",
        "done    Work: it is done (@local)",
        "muster: all is well",
    ]
    assert pyinfra.is_cli is False


def test_data_beats_group_data(inventory: str) -> None:
    work = Work()
    assert run_deploy(inventory, {"colour": "blue"}, work, RunOptions()) == DONE
    assert work.ran[0]["colour"] == "blue"


def test_a_run_that_changes_nothing_prints_one_line(inventory: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(inventory, Work(changes=False)) == DONE
    assert capsys.readouterr().err == "muster: all is well\n"


def test_a_dry_run_says_what_would_change(inventory: str, capsys: pytest.CaptureFixture[str]) -> None:
    work = Work(question="r will be restarted")
    assert run(inventory, work, dry=True) == DONE
    assert work.ran == []
    assert capsys.readouterr().err.splitlines()[-3:] == [
        "r will be restarted",
        "would do  Work: it is done (@local)",
        "muster: dry run: nothing was touched",
    ]


def test_a_failure_is_the_last_line(inventory: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(inventory, Work(result=False)) == FAILED
    err = capsys.readouterr().err
    assert "failed  Work: it is done (@local)" in err
    assert err.splitlines()[-1] == (
        "muster: @local failed at 'Work: it is done'; the running group was not touched; "
        "next: correct that and run it again"
    )
    assert "No hosts remaining!" not in err.splitlines()[-1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A terminal at which somebody types; the answer is given beforehand."""
    answers: list[str] = []
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _text: answers.pop(0))
    yield answers
    assert answers == []


def test_it_asks_before_it_stops_what_serves(inventory: str, typed: list[str]) -> None:
    work = Work(question="r will be restarted: its last start took 14 min")
    typed.append("n")
    assert run(inventory, work) == REFUSED
    assert work.ran == []
    typed.append("y")
    assert run(inventory, work) == DONE
    assert len(work.ran) == 1


def test_without_a_terminal_it_refuses_and_names_the_option(
    inventory: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    work = Work(question="r will be restarted: its last start took 14 min")
    assert run(inventory, work) == REFUSED
    err = capsys.readouterr().err
    assert work.ran == []
    assert "muster: r will be restarted: its last start took 14 min\n" in err
    assert "fix:    run it again with -y" in err
    assert err.splitlines()[-1].startswith("muster: refused; nothing was touched")
    assert run(inventory, work, yes=True) == DONE


def raises(error: BaseException) -> Callable[[], None]:
    def deploy() -> None:
        raise error

    return deploy


@pytest.mark.parametrize("error", [DeployError("no GPU\nneeded: eight"), Refusal("no GPU", needed="eight")])
def test_a_refusal_of_the_deploy_touches_nothing(
    inventory: str, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(inventory, raises(error)) == REFUSED
    assert "muster: no GPU\n" in capsys.readouterr().err


def test_a_missing_inventory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("nowhere.py", Work()) == REFUSED
    assert "no inventory file nowhere.py" in capsys.readouterr().err


def test_an_interrupt_has_a_status_of_its_own(
    inventory: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_state: object) -> None:
        words.touched = True
        raise KeyboardInterrupt

    monkeypatch.setattr(deploy_run, "run_ops", interrupted)
    assert run(inventory, Work()) == INTERRUPTED
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("muster: interrupted; what the hosts have begun goes on; the group was touched; next: ")


def test_a_refusal_on_the_way_is_no_untouched_one(
    inventory: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_state: object) -> None:
        words.touched = True
        raise Refusal("a host says no")

    monkeypatch.setattr(deploy_run, "run_ops", refused)
    assert run(inventory, Work()) == FAILED
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("muster: refused on the way; the group was touched; next: ")
    )
