"""Install one engine release: uv, a virtual environment, the locked packages, and last a note that it is complete.

The environment is made at its final path because virtual environments cannot be moved. Without the note it is no
release: an interrupted installation is wiped and repeated from uv's cache. Progress goes to stdout, line by line.
"""

from __future__ import annotations

import base64
import glob
import json
import os
import subprocess
import tempfile
import threading
import time
import zlib
from typing import Any

from muster.on_host import (
    engine_stamps,
    in_words,
    mutex,
    places,
    progress_lines,
    pylock,
    run_command,
    safe_paths,
    whole_files,
)

Json = dict[str, Any]

_BEAT = 30.0
_COMPILE_SECONDS = 1800.0


def main(request: Json) -> Json:
    """Bring a release to this host and return {changed, packages}.

    Args:
        request: `path`, `spec` (names its content), `python`, `lock` (text of the release's `pylock.toml`, the same
            on every host), `wheels` (directory that holds all its files, or None), `forget` (whether to remove that
            directory once the release is complete), `install_args`, `env`, `uv` (path), `uv_payload` (base64 of the
            deflated binary, or None), `python_dir`, `cache_dir`. `root` (tests): where the file system begins.

    Raises:
        OSError: the last lines of uv; a complete release is untouched, an incomplete one wiped.
    """
    root, path = request.get("root", ""), request.get("root", "") + request["path"]
    os.umask(0o022)  # the ranks run as another user and must be able to read it
    uv = bring_uv(root + request["uv"], request.get("uv_payload"))
    safe_paths.make_directory(os.path.dirname(path))
    with mutex.held(path + ".lock", "installs this release", minutes=30):
        if engine_stamps.release(root, request)["complete"]:
            return {"changed": False, "packages": 0}
        users = running_from(path)
        if users:
            raise OSError("{} is not as planned, but {} runs from it; stop it first".format(path, ", ".join(users)))
        packages = install(request, uv, path, environment(request, root))
        if request["forget"]:
            safe_paths.remove_below(os.path.dirname(root + request["wheels"]))
    return {"changed": True, "packages": packages}


def bring_uv(path: str, payload: str | None) -> str:
    """Write the uv that the control machine sent, unless the host has it, and return its path."""
    if os.access(path, os.X_OK):
        return path
    if not payload:
        raise OSError(f"no uv at {path} and none was sent")
    safe_paths.make_directory(os.path.dirname(path))
    whole_files.write_whole(path, zlib.decompress(base64.b64decode(payload)), 0o755)
    progress_lines.say("uv: {}".format(run_command.must([path, "--version"]).strip()))
    return path


def running_from(path: str) -> list[str]:
    """Return the command lines of processes whose program is below a path."""
    commands = set()
    for link in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(link, "rb") as handle:
                words = handle.read().split(b"\0")[:2]
        except OSError:
            continue
        if any(word.startswith(path.encode() + b"/") for word in words):
            commands.add(b" ".join(words).decode("utf-8", "replace"))
    return sorted(commands)


def environment(request: Json, root: str) -> dict[str, str]:
    """Return uv's environment: Pythons and cache where every user can read them, none of the caller's uv settings."""
    cache = root + request["cache_dir"]
    safe_paths.make_private(cache)  # what another user could put there must not decide what root installs
    base = {key: value for key, value in run_command.environment().items() if not key.startswith(("UV_", "PIP_"))}
    base.pop("VIRTUAL_ENV", None)
    own = {
        "UV_PYTHON_INSTALL_DIR": root + request["python_dir"],
        "UV_CACHE_DIR": cache,
        "UV_NO_PROGRESS": "1",
        "UV_NO_CONFIG": "1",
    }
    return {**base, **own, **request.get("env", {})}


def install(request: Json, uv: str, path: str, env: dict[str, str]) -> int:
    """Make the environment, install into it, note that it is complete; return the number of packages."""
    began = time.monotonic()
    if os.path.lexists(path):
        progress_lines.say(f"removing what an unfinished installation left at {path}")
        safe_paths.remove_below(path)
    progress_lines.say("making a Python {} environment at {}".format(request["python"], path))
    stream([uv, "venv", "--no-project", "--python", request["python"], path], env, path)
    python = os.path.join(path, "bin", "python")
    wheels = request["wheels"] and request.get("root", "") + request["wheels"]
    where = ["--no-index", "--find-links", wheels] if wheels else request["install_args"]
    command = [uv, "pip", "install", "--python", python, "--require-hashes", "--no-deps", *where]
    place = places.resolution(path)
    safe_paths.make_directory(os.path.dirname(place))
    whole_files.write_whole(place, request["lock"].encode())
    packages = pylock.parse(request["lock"], os.path.dirname(place))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("\n".join(pylock.requirements(packages, gathered=bool(wheels))) + "\n")
        requirements.flush()
        progress_lines.say(
            "installing {}, {} packages from {}".format(request["spec"], len(packages), wheels or "the index")
        )
        # Building a source distribution runs it as root: never, where the lock names wheels alone.
        builds = [] if any(package["kind"] != "wheel" for package in packages) else ["--no-build"]
        stream([*command, *builds, "-r", requirements.name], env, path)
    if not os.access(os.path.join(path, "bin", "vllm"), os.X_OK):
        raise OSError(f"{path} has no bin/vllm after the installation; do the requirements name vllm?")
    compile_bytecode(python, path)
    names = ["{name}=={version}".format(**package) for package in packages]
    note = {"spec": request["spec"], "packages": names}
    whole_files.write_whole(os.path.join(path, engine_stamps.COMPLETE), json.dumps(note, indent=1).encode())
    progress_lines.say(f"{len(names)} packages in {time.monotonic() - began:.0f} s")
    return len(names)


def compile_bytecode(python: str, path: str) -> None:
    """Compile what was installed, for the ranks cannot write there; a file that does not compile costs only itself.

    With -S no `.pth` file of a package runs: root runs nothing of what it installs.
    """
    for site in glob.glob(glob.escape(path) + "/lib/python*/site-packages"):
        run_command.run([python, "-I", "-S", "-m", "compileall", "-q", "-j", "0", site], _COMPILE_SECONDS)


def stream(argv: list[str], env: dict[str, str], path: str) -> None:
    """Run a tool, print its lines but those per package, and report now and then that it still runs.

    Raises:
        OSError: it failed; the message ends with its last lines.
    """
    lines = []
    with tempfile.TemporaryDirectory() as home:
        # uv keeps data under HOME; leave the machine owner's alone.
        child = subprocess.Popen(
            argv,
            env={**env, "HOME": home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        done = threading.Event()
        threading.Thread(target=beat, args=(done, path), daemon=True).start()
        try:
            for line in child.stdout or ():
                lines.append(line.rstrip())
                if lines[-1] and not lines[-1].startswith((" + ", " - ", " ~ ")):
                    progress_lines.say(lines[-1])
            status = child.wait()
        finally:
            done.set()
    if status:
        tail = "\n".join(line for line in lines[-15:] if line)
        raise OSError(f"`uv {argv[1]}` ended with {status}:\n{tail}")


def beat(done: threading.Event, path: str) -> None:
    """Print the free space every half minute: a long download must not look like a hang."""
    began = time.monotonic()
    while not done.wait(_BEAT):
        free = os.statvfs(os.path.dirname(path))
        room = in_words.size(free.f_bavail * free.f_frsize)
        progress_lines.say(f"still installing after {time.monotonic() - began:.0f} s; {room} free")
