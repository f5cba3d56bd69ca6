"""Files: staged beside their places while the old group still runs, put in place once it has stopped."""

from __future__ import annotations

from collections.abc import Iterable

from muster.deploys.shared.group_run import GroupRun
from muster.hosts import operations
from muster.hosts.pyinfra_types import current_host, stage

Item = dict[str, str]


@stage("Files")
def stage_files(run: GroupRun) -> None:
    """Bring every file that differs, secrets among them, to its host; nothing reads them yet."""
    host = current_host()
    staged = operations.files_staged(
        _staged(run, host.name), run.secrets.keep, name="units, configuration and secrets are staged"
    )
    run.progress.note(host, "files", staged)


@stage("Files")
def commit_files(run: GroupRun) -> None:
    """Put staged files in place, remove what no plan names any more, enable the units."""
    host = current_host()
    decision = run.decision.hosts[host.name]
    committed = operations.files_committed(
        _staged(run, host.name),
        decision.remove,
        run.host(host).units if decision.enable else (),
        decision.reload,
        name="units and configuration are in place",
    )
    run.progress.note(host, "files in place", committed)


def planned(run: GroupRun, name: str, paths: Iterable[str]) -> list[Item]:
    """Return planned files of a host as its program takes them."""
    files = run.plan.hosts[name].files
    return [
        {
            "path": path,
            "text": files[path].text,
            "sha256": files[path].sha256,
            "mode": files[path].mode,
            "owner": files[path].owner,
            "group": files[path].group,
        }
        for path in paths
    ]


def _staged(run: GroupRun, name: str) -> list[Item]:
    """Return the files of a host that differ, secrets among them."""
    decision, store = run.decision.hosts[name], run.secrets
    return planned(run, name, decision.files) + [
        {
            "path": secret.path,
            "text": store.texts[secret.path],
            "sha256": store.sha256[secret.path],
            "mode": secret.mode,
            "owner": secret.owner,
            "group": secret.group,
        }
        for secret in run.plan.secrets
        if secret.path in decision.secrets
    ]
