"""The last line of a run says what failed, whether the group was touched, and the next command."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from muster.hosts.run_options import as_typed
from muster.hosts.run_words import DONE, FAILED, INTERRUPTED, REFUSED, UNKNOWN, RunWords

REPOSITORY = Path(__file__).parent.parent.parent


def test_a_failure_before_the_group_was_touched() -> None:
    words = RunWords(where="mine.py kimi-k2-instruct")
    words.fail("node1 failed at 'Engine: vLLM is installed'")
    words.fail("node0 failed because node1 did")
    assert words.last() == (
        "node1 failed at 'Engine: vLLM is installed'; the running group was not touched; "
        "next: correct that and run it again"
    )


def test_a_failure_after_it_names_where_to_look() -> None:
    words = RunWords(where="mine.py kimi-k2-instruct", touched=True)
    words.fail("node0 was not ready in time")
    assert words.last() == (
        "node0 was not ready in time; the group was touched; next: muster status mine.py kimi-k2-instruct, "
        "muster logs mine.py kimi-k2-instruct --failure"
    )


def test_advice_takes_the_place_of_a_look() -> None:
    words = RunWords(where="mine.py", touched=True, advice="run the same command again when it answers")
    words.fail("node1 could not be reached")
    assert words.last().endswith("; next: run the same command again when it answers")


def test_a_refusal_and_an_outcome() -> None:
    words = RunWords()
    words.done("k is stopped on node0")
    assert words.last() == "k is stopped on node0"
    words.refuse()
    assert words.last().startswith("refused; nothing was touched; next: ")


def test_the_next_command_is_what_the_user_would_type(tmp_path: Path) -> None:
    words = RunWords()
    words.about(tmp_path / "mine.py", "r")
    assert words.where == f"{tmp_path}/mine.py r"
    words.about(tmp_path / "other.py", "r")
    assert words.where == f"{tmp_path}/mine.py r"
    named = RunWords(where="mine.py")
    named.about(None, "r")
    assert named.where == "mine.py r"
    of_several = RunWords()
    of_several.about(tmp_path / "fleet.py", "r", "kimi-a")
    assert of_several.where == f"{tmp_path}/fleet.py --group kimi-a"
    typed = RunWords(where=as_typed("fleet.py", None, {"group": "kimi-a"}))
    typed.about(tmp_path / "fleet.py", "r", "kimi-a")
    assert typed.where == "fleet.py --group kimi-a"
    unknown = RunWords()
    unknown.about(None, "r")
    assert unknown.where == UNKNOWN


def test_each_run_begins_afresh() -> None:
    words = RunWords(touched=True)
    words.ask("?")
    words.fail("x")
    words.begin("mine.py r")
    assert (words.where, words.questions, words.failures, words.touched) == ("mine.py r", [], [], False)


def test_the_status_says_what_the_last_line_says() -> None:
    words = RunWords()
    assert words.status == DONE
    words.refuse()
    assert words.status == REFUSED
    words.touched = True
    assert words.status == FAILED
    words.truths["a"] = lambda: "unfinished: plan a -> b"
    words.untouched = ("b", "c")
    words.interrupt()
    assert words.status == INTERRUPTED
    assert "; the group was touched; unfinished: plan a -> b; not touched: b, c; next: " in words.last()


DEPLOY = """
from pyinfra.api.command import FunctionCommand

from muster.hosts import operations
from muster.hosts.pyinfra_types import stage
from muster.hosts.run_words import words


@stage("Work")
def work():
    operations.carried_out(FunctionCommand(lambda state, host: False, [], {}), name="it is done")


words.say_at_the_end()
words.done("all is well")
work()
"""


def test_a_step_that_fails_is_the_last_line_of_pyinfras_own_command_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("hosts = ['@local']\n")
    (tmp_path / "deploy.py").write_text(DEPLOY)
    command = [sys.executable, "-m", "pyinfra", "-y", "mine.py", "deploy.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == FAILED
    assert run.stderr.splitlines()[-1] == (
        "muster: @local failed at 'Work: it is done'; the running group was not touched; "
        "next: correct that and run it again"
    )


LOADS = """
import socket, time
held = socket.create_connection(("127.0.0.1", {port}))
time.sleep(100)
hosts = []
"""
CONNECTS = "hosts = [('node0', {{'ssh_hostname': '127.0.0.1', 'ssh_port': {port}}})]\n"


@pytest.mark.parametrize("moment", [LOADS, CONNECTS], ids=["loads", "connects"])
@pytest.mark.parametrize("command", ["pyinfra -y mine.py deploys/stop.py", "muster stop mine.py k -y"])
def test_an_interrupt_before_hosts_are_asked_has_its_status(command: str, moment: str, tmp_path: Path) -> None:
    for name in ("config.py", "deploys"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    program, *words = command.split()
    # A host that never says a word.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (tmp_path / "mine.py").write_text(moment.format(port=listener.getsockname()[1]))
        listener.settimeout(120)
        run = subprocess.Popen(
            [Path(sys.executable).parent / program, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        connection, _ = listener.accept()
        with connection:
            run.send_signal(signal.SIGINT)
            _, err = run.communicate(timeout=120)
    assert run.returncode == INTERRUPTED, err
    said = (
        "muster: interrupted; what the hosts have begun goes on; the running group was not touched; next: run it again"
    )
    assert said in err.splitlines()
