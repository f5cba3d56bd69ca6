"""From hosts with a driver and SSH to a group that answers through every rank; a second run changes nothing."""

from __future__ import annotations

from muster.deploys.base import base
from muster.deploys.bring_up import start_ranks, stop_ranks
from muster.deploys.check import check
from muster.deploys.engine import engine
from muster.deploys.files import commit_files, stage_files
from muster.deploys.gate import gate
from muster.deploys.summary import summary
from muster.deploys.verify import verify


def serve(recipe: str) -> None:
    """Bring a recipe up on the inventory's hosts.

    Args:
        recipe: its name, such as `kimi-k2-instruct`.
    """
    run = check(recipe)
    base(run)
    engine(run)
    stage_files(run)
    gate(run, "everything that can be done while the old group runs")
    stop_ranks(run)
    gate(run, "the stop of the old group")
    commit_files(run)
    gate(run, "files and units")
    start_ranks(run)
    gate(run, "bring-up")
    verify(run)
    summary(run)
