"""Operations, each named by its outcome: every one is called on every host, and data decides who acts.

pyinfra runs a generator twice, when preparing and when executing; everything it reads is handed in. Work that changes
nothing on a host (a gate, a wait, a verification) yields no command: a second run then says "No changes".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pyinfra.api.command import FunctionCommand, PyinfraCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.hosts import programs
from muster.hosts.program_operation import Later, Session
from muster.hosts.pyinfra_types import current_host, current_state, operation
from muster.hosts.say import fail, say

Files = Sequence[Mapping[str, str]]


def _executing() -> tuple[State, Host] | None:
    """Return pyinfra's state and host while operations are executed, None while they are prepared."""
    state, host = current_state(), current_host()
    return (state, host) if state.is_executing else None


@operation
def base_in_effect(files: Files) -> Iterator[PyinfraCommand]:
    """Users, directories and kernel settings are as planned, and in effect.

    Args:
        files: those that differ: `path`, `text`, `sha256`, `mode`, `owner`, `group`.
    """
    if not files:
        current_host().noop("users, directories and kernel settings are as planned")
    else:
        yield Session("place_files", {"do": "base", "files": files}, f"write and apply {_names(files)}", _notes)


@operation
def engine_installed(request: programs.Request | Later | None) -> Iterator[PyinfraCommand]:
    """The engine release is whole on this host.

    Args:
        request: of `muster.on_host.install_engine`, or None where it is.
    """
    if request is None:
        current_host().noop("the release is whole")
    else:
        yield Session("install_engine", request, "install the release", streams=True)


@operation
def command_lines_accepted(request: programs.Request | None) -> Iterator[PyinfraCommand]:
    """The installed vLLM's own parser accepts the planned command lines.

    Args:
        request: of `muster.on_host.ask_parser`, or None where it has accepted them before.
    """

    def report(_state: State, host: Host, answer: programs.Answer) -> bool:
        for argv, error in answer["refused"]:
            fail(host, f"the installed vLLM does not take the planned command line: {error}")
            fail(host, f"  planned: {' '.join(argv)}")
            fail(host, "  fix: correct extra_args, or set vllm_version to what is installed")
        return not answer["refused"]

    if request is None:
        current_host().noop("this engine's parser has taken these command lines before")
    else:
        yield Session("ask_parser", request, f"ask vLLM about {len(request['argvs'])} command line(s)", report)


@operation
def files_staged(files: Files, keep: Callable[[], None]) -> Iterator[PyinfraCommand]:
    """Every file that differs is written beside its place; nothing reads it yet.

    Args:
        files: as for `base_in_effect`; `text` may be a secret and is never printed.
        keep: called before anything is sent; keeps new secrets on the control machine.
    """
    if not files:
        current_host().noop("every file is as planned")
    else:
        if _executing() is not None:
            keep()
        yield Session("place_files", {"do": "stage", "files": files}, f"stage {_names(files)}")


@operation
def files_committed(
    files: Files,
    remove: Sequence[str],
    enable: Sequence[str],
    reload: bool,
    fence: Callable[[], Mapping[str, str] | None] = lambda: None,
) -> Iterator[PyinfraCommand]:
    """Staged files are in place, files that no plan names are gone, systemd has read them, units start at boot.

    Args:
        files: what was staged.
        remove: paths that no plan names any more.
        enable: units to enable.
        reload: whether systemd holds an older state of a unit than its file.
        fence: returns the change that this is a step of; the host refuses the step when it does not hold its lock.
    """
    if not (files or remove or enable or reload):
        current_host().noop("every file is in place, every unit enabled")
    else:
        request = commit_request(files, remove, enable, reload)
        if _executing() is not None and (held := fence()):
            request["fence"] = held
        yield Session("place_files", request, f"put in place {_names(files)}, remove {len(remove)}", _notes)


def commit_request(files: Files, remove: Sequence[str], enable: Sequence[str], reload: bool) -> dict[str, Any]:
    """Return what `muster.on_host.place_files` takes to put staged files in place; arguments as `files_committed`."""
    bare = [{key: value for key, value in item.items() if key != "text"} for item in files]
    return {"do": "commit", "files": bare, "remove": list(remove), "enable": list(enable), "reload": reload}


@operation
def carried_out(command: PyinfraCommand | None) -> Iterator[PyinfraCommand]:
    """A command has succeeded.

    Args:
        command: what this host has to do, or None.
    """
    if command is None:
        current_host().noop("nothing to do on this host")
    else:
        yield command


@operation
def holds(question: FunctionCommand) -> Iterator[PyinfraCommand]:
    """Something holds that needs no change: a gate, a wait, a verification. Asked when executing, never before.

    Args:
        question: its function prints why and returns False when it does not hold.
    """
    context = _executing()
    current_host().noop("asked when executing; changes nothing")
    if context is not None and question.function(*context, *question.args, **question.kwargs) is False:
        yield FunctionCommand(does_not_hold, [], {})


def does_not_hold(state: State, host: Host) -> bool:
    """Fail the operation whose question was answered with no."""
    state.failed_hosts.add(host)  # with --no-wait pyinfra loses the failure, and would exit with 0
    return False


def _names(files: Files) -> str:
    names = [item["path"] for item in files]
    return ", ".join(names) if names else "nothing"


def _notes(_state: State, host: Host, answer: programs.Answer) -> None:
    for note in answer["notes"]:
        say(host, f"note: {note}")
