"""An installed engine: its versions, read from files without importing it. The import is a separate request.

A host program: standard library only, Python 3.9 or newer; changes nothing.
"""

from __future__ import annotations

import glob
import json
import os
import re
from typing import Any

from muster.on_host import run_unprivileged, whole_files

Json = dict[str, Any]

DISTRIBUTIONS = {
    "vllm": "vllm",
    "torch": "torch",
    "ray": "ray",
    "nccl": r"nvidia_nccl_cu\d+",
    "transformers": "transformers",
}
IMPORT = (
    "import json, torch, vllm; "
    "print(json.dumps({'vllm': vllm.__version__, 'torch': torch.__version__, 'cuda': torch.version.cuda, "
    "'gpus': torch.cuda.device_count()}))"
)


def distributions(packages: str) -> dict[str, str]:
    """Return the version of each known distribution in one site-packages directory."""
    versions = {}
    for entry in os.listdir(packages):
        match = re.fullmatch(r"([^-]+)-(.+)\.dist-info", entry)
        for key, pattern in DISTRIBUTIONS.items():
            if match and re.fullmatch(pattern, match.group(1).lower()):
                versions[key] = match.group(2)
    return versions


def release(path: str) -> Json | None:
    """Return versions, CUDA variant and Python of a virtual environment; None where there is none."""
    site = sorted(glob.glob(os.path.join(path, "lib", "python3*", "site-packages")))
    if not site:
        return None
    packages = site[-1]
    facts: Json = {"path": path, "versions": distributions(packages), "cuda": None, "python": None}
    torch = whole_files.read_start(os.path.join(packages, "torch", "version.py")) or ""
    cuda = re.search(r"^cuda\b[^=]*=\s*(?:'([^']+)'|\"([^\"]+)\"|None)", torch, re.M)
    facts["cuda"] = (cuda.group(1) or cuda.group(2) or "none") if cuda else None
    environment = whole_files.read_start(os.path.join(path, "pyvenv.cfg")) or ""
    python = re.search(r"^version(?:_info)?\s*=\s*(\S+)", environment, re.M)
    facts["python"] = python.group(1) if python else None
    return facts


def imported(path: str, seconds: float) -> Json:
    """Import vLLM and torch with the release's own Python and return {"value": versions} or {"error": text}."""
    argv = [os.path.join(path, "bin", "python"), "-c", run_unprivileged.one_line(IMPORT)]
    try:
        done = run_unprivileged.finish(argv, seconds)
    except TimeoutError:
        return {"error": f"import did not finish in {seconds:g} s"}
    except OSError as error:
        return {"error": str(error)}
    lines = done.output.strip().splitlines()
    if done.status == 0 and lines:
        try:
            value = json.loads(lines[-1])
        except (ValueError, RecursionError):
            value = None
        return {"value": value} if isinstance(value, dict) else {"error": "unexpected answer: " + lines[-1][:200]}
    errors = done.errors.strip().splitlines()
    return {"error": (errors[-1] if errors else f"exit status {done.status}")[:500]}


def digest(path: str) -> str | None:
    """Return a file's SHA-256 in hexadecimal, or None where there is no such file."""
    try:
        return whole_files.sha256(path)
    except OSError:
        return None


def carried(paths: list[str]) -> str | None:
    """Return the plan's digest that the installed files carry, or None."""
    for path in paths:
        digest = re.search(r"MUSTER_DIGEST=['\"]?([0-9a-f]{8,64})", whole_files.read_start(path, 1 << 20) or "")
        if digest:
            return digest.group(1)
    return None


def revision(cache: str, repository: str) -> str | None:
    """Return the commit that the hub's cache has of a repository, or None.

    Args:
        cache: the hub directory (`…/hub`), which holds `models--<owner>--<name>`.
        repository: `<owner>/<name>`.
    """
    base = os.path.join(cache, "models--" + repository.replace("/", "--"))
    main_branch = whole_files.read_start(os.path.join(base, "refs", "main"), 200)
    if main_branch is not None:
        return main_branch.strip() or None
    snapshots = os.path.join(base, "snapshots")
    commits = sorted(os.listdir(snapshots)) if os.path.isdir(snapshots) else []
    return commits[0] if len(commits) == 1 else None


def main(request: Json) -> Json:
    """Describe the installed engine.

    Args:
        request: `path` of the virtual environment; `files` to hash; `model` with `cache` and
            `repository`; `import` (seconds) to try the import.
    """
    path, model = request.get("path"), request.get("model") or {}
    answer: Json = {"release": release(path) if path else None}
    answer["files"] = {name: digest(name) for name in request.get("files", [])}
    answer["digest"] = carried(request.get("files", []))
    answer["revision"] = revision(model["cache"], model["repository"]) if model else None
    if path and request.get("import") and answer["release"]:
        answer["imported"] = imported(path, float(request["import"]))
    return answer
