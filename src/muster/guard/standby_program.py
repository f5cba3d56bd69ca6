"""The process that stands by: the engine's program with its modules imported, and nothing else of it begun.

    python standby_program.py DESCRIPTOR MODULES PROGRAM [ARGUMENTS...]

The guard starts it with the engine's own interpreter, environment and arguments. It imports MODULES (a comma between
two), says `ready` on the socket DESCRIPTOR, and waits there for one line of JSON: the variables of the generation, and
the words that end its command line. Then it is the engine: the same process runs PROGRAM as if it had been started so.
It ends when the guard does, and holds no GPU meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import runpy
import socket
import sys
from collections.abc import Iterable, Mapping

READY = b"ready\n"
PLACE = "MUSTER_STANDBY"
"""Variable that keeps the place of a generation's in this process's environment, as /proc/PID/environ shows it."""
ROOM = 128
LIMIT = 4096


def main() -> None:
    descriptor, modules, program = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3]
    sys.argv = sys.argv[3:]
    sys.path[0] = os.path.dirname(os.path.realpath(program))  # as Python does for a program
    with open(program, "rb") as file:
        compile(file.read(), program, "exec")  # a script of sh that is no Python ends here, not as the engine
    guard = socket.socket(fileno=descriptor)
    guard.set_inheritable(False)
    import_all(name for name in modules if name)
    guard.sendall(READY)
    variables, words = heard(guard)
    guard.close()
    look_like(program, variables, words)
    sys.argv += words
    os.environ.pop(PLACE, None)
    os.environ.update(variables)
    runpy.run_path(program, run_name="__main__")


def import_all(names: Iterable[str]) -> None:
    """Import what can be imported of them: the engine itself imports the rest, and says why that fails."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def heard(guard: socket.socket) -> tuple[dict[str, str], list[str]]:
    """The variables and words that the guard sends; ends this process where the guard is gone."""
    text = b""
    while not text.endswith(b"\n"):
        part = guard.recv(LIMIT)
        if not part:
            raise SystemExit(0)
        text += part
    told = json.loads(text)
    variables = {str(name): str(value) for name, value in told["variables"].items()}
    return variables, [str(word) for word in told["words"]]


def look_like(program: str, variables: Mapping[str, str], more: Iterable[str]) -> None:
    """Have /proc show this process as the engine started in the usual way: its command line and the generation."""
    with open("/proc/self/cmdline", "rb") as file:
        words = [*file.read().split(b"\0")[:-1], *map(os.fsencode, more)]
    with open("/proc/self/stat", "rb") as file:
        fields = [int(field) for field in file.read().rpartition(b")")[2].split()[1:]]
    find_title_room()
    # arg_start, arg_end, env_start and env_end: fields 48 to 51 of proc(5).
    arguments, environment = slice(*fields[44:46]), slice(*fields[46:48])
    interpreter = words[: words.index(os.fsencode(__file__))]
    rest = words[words.index(os.fsencode(program), len(interpreter)) :]
    write(arguments, 0, arguments.stop - arguments.start, b"\0".join([*interpreter, *rest]))
    place = f"{PLACE}={os.environ.get(PLACE, '')}".encode()
    shown = ctypes.string_at(environment.start, environment.stop - environment.start)
    generation = b"\0".join(f"{name}={value}".encode() for name, value in variables.items())
    write(environment, shown.find(place), len(place), generation)


def find_title_room() -> None:
    """Have setproctitle look for this process's command line while it is where the kernel put it.

    vLLM's processes bear titles, by which the guard knows them. The library takes the room of the command line, once,
    and of the environment too unless it is told not to, which would hide the generation.
    """
    told = os.environ.setdefault("SPT_NOENV", "muster")
    with contextlib.suppress(ImportError):
        importlib.import_module("setproctitle").getproctitle()
    if told == "muster":
        del os.environ["SPT_NOENV"]


def write(where: slice, at: int, room: int, text: bytes) -> None:
    """Write over bytes of this process's memory, `at` from the start of a place, if there is room."""
    if 0 < where.start < where.stop and 0 <= at <= where.stop - where.start - room and len(text) < room:
        ctypes.memmove(where.start + at, text.ljust(room, b"\0"), room)


if __name__ == "__main__":
    main()
