"""Base: the system user, directories and kernel settings, each a declarative file that takes effect at once."""

from __future__ import annotations

from muster.deploys.place_files import planned
from muster.deploys.shared.group_run import GroupRun
from muster.hosts import operations
from muster.hosts.pyinfra_types import current_host, stage


@stage("Base")
def base(run: GroupRun) -> None:
    """Bring users, directories and kernel settings to every host."""
    host = current_host()
    done = operations.base_in_effect(
        planned(run, host.name, run.decision.hosts[host.name].base),
        name="user, directories and limits are in effect",
    )
    run.progress.note(host, "base", done)
