"""Install a measuring tool into a virtual environment of its own on this host, once."""

from __future__ import annotations

import json
import os
from typing import Any

from muster.on_host import install_engine, safe_paths, whole_files

Json = dict[str, Any]

_COMPLETE = ".muster-complete.json"


def main(request: Json) -> Json:
    """Make sure the tool is installed.

    Args:
        request: `path` (of the environment), `program` (must be in its bin), `python`, `requirements`,
            `install_args`, `env`, `uv` (path on this host), `uv_payload` (or None), `python_dir`, `cache_dir`.

    Returns:
        {installed, machine: `uname -m`}; `installed` is false where there is neither uv nor a payload.
    """
    path, uv = request["path"], request["uv"]
    machine = os.uname().machine
    if whole_files.read_object(os.path.join(path, _COMPLETE)).get("requirements") == request["requirements"]:
        return {"installed": True, "machine": machine}
    if not os.access(uv, os.X_OK) and not request.get("uv_payload"):
        return {"installed": False, "machine": machine}
    os.umask(0o022)  # the tool runs as another user
    uv = install_engine.bring_uv(uv, request.get("uv_payload"))
    env = install_engine.environment(request, "")
    safe_paths.remove_below(path)
    safe_paths.make_directory(os.path.dirname(path))
    install_engine.stream([uv, "venv", "--no-project", "--python", request["python"], path], env, path)
    command = [uv, "pip", "install", "--python", os.path.join(path, "bin", "python"), *request["install_args"]]
    install_engine.stream([*command, "--", *request["requirements"]], env, path)
    if not os.access(os.path.join(path, "bin", request["program"]), os.X_OK):
        raise OSError("{} has no bin/{} after the installation".format(path, request["program"]))
    note = json.dumps({"requirements": request["requirements"]})
    whole_files.write_whole(os.path.join(path, _COMPLETE), note.encode())
    return {"installed": True, "machine": machine}
