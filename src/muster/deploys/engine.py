"""Engine: one release, pinned, whole on every host, and its parser takes what is planned."""

from __future__ import annotations

from typing import Any

from muster import operations, uv_binary
from muster.decision import asked
from muster.deploys.group_run import GroupRun
from muster.typed import current_host, stage


@stage("Engine")
def engine(run: GroupRun) -> None:
    """Install the release where it is missing, then ask it about every new command line of its host."""
    host = current_host()
    installed = operations.engine_installed(_release(run, host.name), name=f"vLLM {run.plan.vllm_version} is installed")
    run.progress.note(host, "engine", installed)
    accepted = operations.command_lines_accepted(
        _questions(run, host.name), name="the installed vLLM takes the planned command line"
    )
    run.progress.note(host, "command line", accepted)


def _release(run: GroupRun, name: str) -> dict[str, Any] | None:
    """Return what to install on a host, or None."""
    decision, release = run.decision.hosts[name], run.plan.release
    if not decision.install:
        return None
    return {
        "path": release.path,
        "spec": release.id,
        "python": release.python,
        "requirements": list(release.requirements),
        "overrides": list(release.overrides),
        "install_args": list(release.install_args),
        "env": dict(release.env),
        "uv": uv_binary.path_on_hosts(run.root),
        "uv_payload": uv_binary.payload(run.seen[name]["machine"]) if decision.send_uv else None,
        "python_dir": f"{run.root}/python",
        "cache_dir": "/var/cache/muster/uv",
    }


def _questions(run: GroupRun, name: str) -> dict[str, Any] | None:
    """Return the command lines to ask about on a host, or None."""
    decision = run.decision.hosts[name]
    # A release that was just installed has never been asked anything.
    argvs = asked(run.plan.hosts[name]) if decision.install else decision.ask
    if not argvs:
        return None
    return {"release": {"path": run.plan.release.path}, "argvs": [list(argv) for argv in argvs]}
