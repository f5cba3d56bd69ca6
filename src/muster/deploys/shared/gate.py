"""Gate: nobody passes before every host of the group has come through everything above it."""

from __future__ import annotations

from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.shared.progress import Progress
from muster.hosts import operations
from muster.hosts.pyinfra_types import current_host
from muster.hosts.run_words import words
from muster.hosts.say import fail


def gate(progress: Progress, name: str, *, settles: bool = False) -> None:
    """Stop here unless every host of the group has passed every operation noted so far.

    Args:
        progress: the group's.
        name: what every host must be through: "the stop of the old group".
        settles: the change has succeeded once all have come: what fails afterwards takes nothing back.
    """
    host = current_host()
    count = progress.noted(host)
    question = FunctionCommand(_all_have_come, [progress, count, settles], {})
    progress.note(host, name, operations.holds(question, name=f"every host is through {name}"))


def _all_have_come(state: State, host: Host, progress: Progress, count: int, settles: bool) -> bool:
    missing = progress.short_of(count)
    # A host that came here before its peers has failed at this very gate, which it has not noted as passed.
    failed = {other.name for other in state.failed_hosts} & set(progress.hosts)
    missing = missing or [f"{name} has failed" for name in sorted(failed)]
    lost = progress.transaction.lost() if progress.transaction is not None else ""
    missing = missing or ([f"the lock of the group is lost: {lost}"] if lost else [])
    if missing:
        fail(host, "; ".join(missing))
        if any("has not come" in text for text in missing):
            fail(host, "hosts must go step by step together: run without --serial and --no-wait")
        if not (progress.touched or words.touched):
            fail(host, "the running group was not touched")
        return False
    progress.settled = progress.settled or settles
    progress.touched = True  # from the first gate on, what follows acts on what runs
    return True
