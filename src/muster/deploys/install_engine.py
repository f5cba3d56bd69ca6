"""Engine: one release, resolved once, the same files on every host; its parser accepts the planned command lines."""

from __future__ import annotations

from typing import Any

from muster.deploys.shared.group_run import GroupRun
from muster.deploys.shared.resolution import Resolution
from muster.hosts import operations
from muster.hosts.pyinfra_types import current_host, current_state, stage
from muster.plan import own_files
from muster.plan.reserved_flags import DESTS
from muster.plan.restart_decision import asked, decided


@stage("Engine")
def engine(run: GroupRun) -> None:
    """Install the release where it is missing, then ask it about every new command line of its host."""
    host = current_host()
    resolution = Resolution.of(current_state(), run)
    what = f"vLLM {run.plan.vllm_version}"
    steps = {
        f"what {what} was resolved to before is known": resolution.reading(host.name),
        f"{what} is resolved to files with hashes": resolution.resolving(host.name),
        f"every package of {what} is here, from one download": resolution.gathering(host.name),
    }
    for name, session in steps.items():
        operations.carried_out(session, name=name)
    request = resolution.installation(host.name) if run.decision.hosts[host.name].install else None
    installed = operations.engine_installed(request, name=f"{what} is installed")
    run.progress.note(host, "engine", installed)
    accepted = operations.command_lines_accepted(
        _questions(run, host.name), name="the installed vLLM takes the planned command line"
    )
    run.progress.note(host, "command line", accepted)


def _questions(run: GroupRun, name: str) -> dict[str, Any] | None:
    """Return the command lines to ask about on a host, or None."""
    decision = run.decision.hosts[name]
    # A release that was just installed has never been asked anything.
    argvs = asked(run.plan.hosts[name]) if decision.install else decision.ask
    if not argvs:
        return None
    return {
        "release": {"path": run.plan.release.path},
        "argvs": [list(argv) for argv in argvs],
        "decided": [list(argv) for argv in decided(run.plan.hosts[name], argvs)],
        "dests": list(DESTS),
        "files": {path: run.plan.hosts[name].files[path].text for path in own_files.placed(run.plan, name)},
        "env": {"HF_HOME": run.settings.hf_home},
    }
