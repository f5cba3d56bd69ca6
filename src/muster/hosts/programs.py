"""Programs that travel to a host on the standard input of one SSH session, and the JSON that comes back.

Nothing of a request reaches a command line: the program text, the requests and their secrets are one stream that the
host's own Python reads. Pure: no pyinfra here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from muster.hosts.printable import one_line, printable_data

Request = Mapping[str, Any]
Answer = dict[str, Any]

_PYTHONS = "python3 python3.13 python3.12 python3.11 python3.10 python3.9 /usr/libexec/platform-python"
_UNUSABLE, _FAILED = 1, 3
"""Exit statuses: of a Python that is too old, broken or incomplete, which has read nothing, and of a failed program."""
# The first Python that is new enough reads the program: starting one to ask and one to run is a quarter of a session.
_READ = (
    f"import json, sys\nif sys.version_info < (3, 9): sys.exit({_UNUSABLE})\n"
    f"try: exec(sys.stdin.buffer.read() or sys.exit({_UNUSABLE}))\n"
    f"except Exception: sys.excepthook(*sys.exc_info()); sys.exit({_FAILED})"
)
# The last line answers for a host that has none.
COMMAND = (
    f"""for p in {_PYTHONS}; do command -v "$p" >/dev/null || continue; "$p" -ISc "{_READ}"; s=$?; """
    f"""case $s in {_UNUSABLE}|126|127) ;; *) exit $s;; esac; done; cat >/dev/null; """
    """printf '{"no_python": "%s"}\\n' "$(python3 --version 2>&1 | head -n 1 | tr -cd '[:alnum:]. ')\""""
)

# importlib.abc and importlib.util would import most of what they need for resources and pathlib: half of the start.
_DRIVER = """
import importlib, json, sys
from importlib.machinery import ModuleSpec
PREFIX = "muster.on_host."
requests, sources = json.loads(REQUESTS), json.loads(SOURCES)
out, sys.stdout = sys.stdout, sys.stderr  # what a program prints is progress; only the answer goes to stdout

class Bundled:
    def find_spec(self, name, path=None, target=None):
        package = name in ("muster", "muster.on_host")
        if package or name.startswith(PREFIX) and name[len(PREFIX):] in sources:
            return ModuleSpec(name, self, is_package=package)
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        text = sources.get(module.__name__[len(PREFIX):], "")
        exec(compile(text, "<" + module.__name__ + ">", "exec"), module.__dict__)

sys.meta_path.insert(0, Bundled())
answers, streams = {}, STREAMS
if streams:  # then lines are for people; the exit status and stderr are the answer
    sys.stdout = out
for name, request in requests.items():
    try:
        answers[name] = importlib.import_module(PREFIX + name).main(request)
    except BaseException as error:
        kind = "" if isinstance(error, OSError) else type(error).__name__ + ": "
        answers[name] = {"error": kind + str(error)}
errors = [answer["error"] for answer in answers.values() if "error" in answer]
if streams and errors:
    print("; ".join(errors), file=sys.stderr)
    sys.exit(FAILED)
if not streams:
    out.write("\\n" + json.dumps(answers) + "\\n")
    out.flush()
"""


def open_command(size: int) -> str:
    """Return the command for a program that goes on reading its standard input.

    Args:
        size: bytes of the program, the first on standard input.
    """
    # A status cannot tell here who has read what: the Python is asked first, then runs.
    return (
        f'for p in {_PYTHONS}; do "$p" -ISc "import json, sys; sys.exit(sys.version_info < (3, 9))" 2>/dev/null && '
        f'exec "$p" -ISc "import sys; exec(sys.stdin.buffer.read({size}))"; done; echo no python3 of 3.9 or newer >&2'
    )


def source(name: str) -> str:
    """Return the text of the host program `name` (a module of `muster.on_host`).

    Raises:
        FileNotFoundError: there is no such program.
    """
    return (Path(__file__).parents[1] / "on_host" / f"{name}.py").read_text(encoding="utf-8")


def bundle(requests: Mapping[str, Request], *, streams: bool = False) -> str:
    """Return one Python program that runs each named host program and prints one JSON object of their answers.

    Args:
        requests: program name -> what its `main` is given; run in this order.
        streams: print what the programs print, as it comes, and no answers; errors go to stderr, with status 3.

    A program that raises answers `{"error": ...}`, and the others still run.
    """
    return (
        f"REQUESTS = {_literal(requests)}\nSOURCES = {_sources(tuple(requests))}\n"
        f"STREAMS = {streams}\nFAILED = {_FAILED}\n{_DRIVER}"
    )


@cache
def _sources(names: tuple[str, ...]) -> str:
    return _literal(_with_imports(names))


def _with_imports(names: tuple[str, ...]) -> dict[str, str]:
    """Return the sources of host programs and of every host module that they import."""
    sources: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in sources:
            sources[name] = source(name)
            waiting.extend(_imports(sources[name]))
    return sources


def _imports(text: str) -> list[str]:
    """Return the names of the host modules that a program imports from `muster.on_host`."""
    names: list[str] = []
    for module, imported in _IMPORT.findall(text):
        names += [module] if module else [word.split()[0] for word in imported.strip("()").split(",") if word.strip()]
    return names


# Programs are the project's own and formatted: parsing them takes 40 times as long as looking for these lines.
_IMPORT = re.compile(r"^ *from muster\.on_host(?:\.(\w+))? import (\([^)]*\)|.*)$", re.M)


def _literal(value: object) -> str:
    # JSON is ASCII here, and as a Python string literal it survives any locale of the host.
    return repr(json.dumps(value, default=dict))


def answers(lines: Iterable[str]) -> dict[str, Answer]:
    """Return program name -> answer, from the lines of a session's standard output; every string is printable.

    Args:
        lines: everything the session printed, banners of the login shell included.

    Raises:
        ValueError: there is no answer among them, with the last line; or it is no JSON within bounds.
    """
    lines = list(lines)
    for line in reversed(lines):
        if line.startswith("{") and line.endswith("}"):
            answers = _parsed(line)
            if "no_python" in answers:
                raise ValueError(
                    f"found {one_line(str(answers['no_python'])) or 'no python3'};"
                    " needed: a complete python3 of 3.9 or newer;"
                    " fix: install the distribution's python3 package"
                )
            return answers
    last = one_line(next((line for line in reversed(lines) if line.strip()), "nothing"))
    raise ValueError(f"the host's program printed no answer; its last line was: {last}")


def _parsed(line: str) -> dict[str, Answer]:
    if line.count("{") + line.count("[") + line.count(",") > _VALUES:
        raise ValueError(f"the host's program printed an answer of more than {_VALUES} values")
    try:
        answers: dict[str, Answer] = printable_data(json.loads(line))
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else one_line(str(error))
        raise ValueError(f"the host's program printed an answer that cannot be read: {why}") from None
    return answers


_VALUES = 2_000_000
