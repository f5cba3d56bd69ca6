"""The process that stands by: the engine's program with its modules imported, and nothing else of it begun.

    python standby_program.py DESCRIPTOR MODULES PROGRAM [ARGUMENTS...]

The guard starts it with the engine's own interpreter, environment and arguments. It imports MODULES (a comma between
two), says `ready` on the socket DESCRIPTOR, and waits there for one line of JSON: variables of the generation. Then it
is the engine: the same process runs PROGRAM as if it had been started so. It ends when the guard does, and holds no GPU
meanwhile.
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
    variables = heard(guard)
    guard.close()
    look_like(program, variables)
    os.environ.pop(PLACE, None)
    os.environ.update(variables)
    runpy.run_path(program, run_name="__main__")


def import_all(names: Iterable[str]) -> None:
    """Import what can be imported of them: the engine itself imports the rest, and says why that fails."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def heard(guard: socket.socket) -> dict[str, str]:
    """The variables that the guard sends; ends this process where the guard is gone."""
    text = b""
    while not text.endswith(b"\n"):
        part = guard.recv(LIMIT)
        if not part:
            raise SystemExit(0)
        text += part
    return {str(name): str(value) for name, value in json.loads(text).items()}


def look_like(program: str, variables: Mapping[str, str]) -> None:
    """Have /proc show this process as the engine started in the usual way: its command line and the generation."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    with open("/proc/self/cmdline", "rb") as file:
        words = file.read().split(b"\0")[:-1]
    # arg_start, arg_end, env_start and env_end: fields 48 to 51 of proc(5).
    arguments, environment = (int(fields[45]), int(fields[46])), (int(fields[47]), int(fields[48]))
    interpreter = words[: words.index(os.fsencode(__file__))]
    rest = words[words.index(os.fsencode(program), len(interpreter)) :]
    replace(arguments, b"\0".join(words), b"\0".join([*interpreter, *rest]))
    place = f"{PLACE}={os.environ.get(PLACE, '')}".encode()
    replace(environment, place, b"\0".join(f"{name}={value}".encode() for name, value in variables.items()))


def replace(where: tuple[int, int], old: bytes, new: bytes) -> None:
    """Write over bytes of this process's memory that lie between two addresses, if what is new fits."""
    start, end = where
    if 0 < start < end and len(new) <= len(old):
        found = ctypes.string_at(start, end - start).find(old)
        if found >= 0:
            ctypes.memmove(start + found, new.ljust(len(old), b"\0"), len(old))


if __name__ == "__main__":
    main()
