"""The process that stands by: it imports, waits, and is the engine from one moment to the next."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.guard.standby import Standby

ENGINE = """
import json, multiprocessing, os, sys, setproctitle

def tell(title=""):
    if title:
        setproctitle.setproctitle(title)
    shown = {}
    for name in ("cmdline", "environ"):
        with open(f"/proc/self/{name}", "rb") as file:
            shown[name] = file.read().decode().rstrip(chr(0)).split(chr(0))
    shown |= {"argv": sys.argv, "name": __name__, "path": sys.path[0], "wave": "wave" in sys.modules}
    shown["variables"] = list(os.environ)
    print(json.dumps({**shown, "generation": os.environ.get("MUSTER_GENERATION")}), flush=True)

if __name__ == "__main__":
    tell()
    for kind, *title in (("spawn",), ("fork", "VLLM::EngineCore")):
        child = multiprocessing.get_context(kind).Process(target=tell, args=title)
        child.start()
        child.join()
    sys.exit(3)
"""
VARIABLES = {"MUSTER_GENERATION": "0123456789abcdef" * 2, "MUSTER_INSTANCE": "fedcba9876543210"}


@pytest.fixture
def program(tmp_path: Path) -> str:
    path = tmp_path / "engine"
    path.write_text(f"#!{sys.executable} -B\n{ENGINE}")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def made() -> Iterator[list[Standby]]:
    processes: list[Standby] = []
    yield processes
    for each in processes:
        each.end()
        each.process.wait(30)


def until_ready(standby: Standby) -> None:
    until = time.monotonic() + 60
    while not standby.ready:
        assert standby.look() == ""
        assert time.monotonic() < until
        time.sleep(0.02)


def test_it_is_the_engine_as_if_it_had_been_started_so(program: str, made: list[Standby]) -> None:
    argv, env = (program, "serve", "model"), dict(os.environ)
    made.append(standby := Standby(argv, env, "<mark> ", ["wave", "no.such.module"]))
    until_ready(standby)
    waits = Path(f"/proc/{standby.pid}/environ").read_text()
    assert "VLLM_LOGGING_PREFIX=<mark> \0" in waits
    assert "MUSTER_GENERATION" not in waits
    assert standby.fits(argv, env)
    process, said = standby.take(VARIABLES)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    itself, spawned, forked = (json.loads(line) for line in (said + out).decode().splitlines())
    assert itself["cmdline"] == [sys.executable, "-B", *argv]
    assert itself["argv"] == list(argv)
    assert (itself["name"], itself["path"], itself["wave"]) == ("__main__", str(Path(program).parent), True)
    assert {f"{name}={value}" for name, value in VARIABLES.items()} <= set(itself["environ"])
    assert not any(word.startswith("MUSTER_STANDBY") for word in itself["environ"] + spawned["environ"])
    assert itself["generation"] == spawned["generation"] == VARIABLES["MUSTER_GENERATION"]
    assert forked["cmdline"] == ["VLLM::EngineCore"], "the guard knows an engine's processes by their titles"
    assert set(itself["environ"]) == set(forked["environ"]), "a title leaves the generation to be seen"
    assert "SPT_NOENV" not in itself["variables"]
    assert (spawned["name"], spawned["wave"]) == ("__mp_main__", False), "what is spawned begins anew"


def test_its_command_line_ends_in_the_words_of_its_generation(program: str, made: list[Standby]) -> None:
    argv, more = (program, "serve", "model"), ["--load-format", "fastsafetensors"]
    made.append(standby := Standby(argv, os.environ, "", ("json", "os")))
    until_ready(standby)
    assert standby.fits(argv, os.environ)
    process, said = standby.take(VARIABLES, more)
    out, _ = process.communicate(timeout=60)
    itself, spawned, _ = (json.loads(line) for line in (said + out).decode().splitlines())
    assert itself["cmdline"] == [sys.executable, "-B", *argv, *more]
    assert itself["argv"] == spawned["argv"] == [*argv, *more]


def test_it_is_no_other_engine(program: str, made: list[Standby]) -> None:
    argv, env = (program, "serve"), dict(os.environ)
    made.append(standby := Standby(argv, env, "", ()))
    assert not standby.fits(argv, env), "not before it is ready"
    until_ready(standby)
    assert not standby.fits((*argv, "--more"), env)
    assert not standby.fits(argv, {**env, "CUDA_VISIBLE_DEVICES": "GPU-1"})
    assert standby.fits(argv, env)
    os.kill(standby.pid, signal.SIGKILL)
    standby.process.wait(30)
    assert not standby.fits(argv, env)


def test_what_cannot_be_imported_is_left_to_the_engine(program: str, tmp_path: Path, made: list[Standby]) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such card')")
    made.append(standby := Standby((program,), {**os.environ, "PYTHONPATH": str(tmp_path)}, "", ["broken", "wave"]))
    until_ready(standby)


def test_it_ends_with_its_guard(program: str, made: list[Standby]) -> None:
    made.append(standby := Standby((program,), os.environ, "", ()))
    until_ready(standby)
    standby._guard.close()
    assert standby.process.wait(60) == 0


def test_only_a_python_script_can_stand_by(tmp_path: Path) -> None:
    other = tmp_path / "engine"
    other.write_text("#!/bin/sh\nexec true\n")
    with pytest.raises(OSError, match=f"{other} is no Python script"):
        Standby((str(other),), {}, "", ())
    (tmp_path / "python").symlink_to(sys.executable)
    standby = Standby((str(other),), os.environ, "", ())
    assert standby.process.wait(60) == 1
    assert "SyntaxError" in standby.look()
    standby.end()


def test_the_entry_script_of_an_environment_with_a_long_path_is_python(tmp_path: Path, made: list[Standby]) -> None:
    """The kernel takes no long interpreter: sh starts the Python beside the script, which passes over its lines."""
    (tmp_path / "python").symlink_to(sys.executable)
    program = tmp_path / "engine"
    program.write_text(f"#!/bin/sh\n'''exec' '{tmp_path}/python' \"$0\" \"$@\"\n' '''\nprint('python runs')\n")
    made.append(standby := Standby((str(program),), os.environ, "", ()))
    until_ready(standby)
    process, said = standby.take(VARIABLES)
    assert said + process.communicate(timeout=60)[0] == b"python runs\n"
