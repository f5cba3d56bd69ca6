"""Files: staged beside their places while the old group still runs, put in place once it has stopped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from muster.deploys.shared.group_run import GroupRun
from muster.hosts import operations
from muster.hosts.pyinfra_types import current_host, stage
from muster.plan.types import File

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
    committed = operations.files_committed(
        *_committed(run, host.name),
        lambda: run.progress.fence(host.name),
        name="units and configuration are in place",
    )
    run.progress.note(host, "files in place", committed)


def commit_request(run: GroupRun, name: str) -> dict[str, Any]:
    """Return what puts the staged files of a host in place, for a host that has to do it by itself."""
    return operations.commit_request(*_committed(run, name))


def _committed(run: GroupRun, name: str) -> tuple[list[Item], tuple[str, ...], tuple[str, ...], bool]:
    """Return what is put in place on a host, what is removed, which units are enabled, whether to reload."""
    decision = run.decision.hosts[name]
    enable = run.plan.hosts[name].units if decision.enable else ()
    return _staged(run, name), decision.remove, enable, decision.reload


def planned(run: GroupRun, name: str, paths: Iterable[str]) -> list[Item]:
    """Return planned files of a host as its program takes them."""
    files = run.plan.hosts[name].files
    return [item(path, files[path]) for path in paths]


def item(path: str, file: File) -> Item:
    """Return one planned file as a host's program takes it."""
    return {
        "path": path,
        "text": file.text,
        "sha256": file.sha256,
        "mode": file.mode,
        "owner": file.owner,
        "group": file.group,
    }


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
        if secret.path in decision.secrets and secret.path in store.texts
    ]
