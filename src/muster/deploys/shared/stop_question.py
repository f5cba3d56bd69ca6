"""What a stop of a running group costs, as the question that comes before it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from muster.on_host.in_words import duration


def stop_question(
    command: str, group: str, hosts: Sequence[str], drain_seconds: int, last_start: float | None = None
) -> str:
    """Return what is about to be stopped, on which hosts, and for how long nothing will answer.

    Args:
        command: `stop` or `restart`.
        group: its name.
        hosts: of the group.
        drain_seconds: how long requests in flight get.
        last_start: seconds from the start of the ranks until the group was ready, the last time; None if unknown.
    """
    what = f"{group} on {', '.join(hosts)} will be {'stopped' if command == 'stop' else 'restarted'}"
    what += f": {_drain(drain_seconds)}"
    if command == "stop":
        return f"{what}, then nothing answers until it is resumed"
    last = f"its last start took {duration(last_start)}" if last_start is not None else "no start was measured yet"
    return f"{what}, then nothing answers until it is ready again ({last})"


def rename_question(former: str, group: str, hosts: Sequence[str], drain_seconds: int) -> str:
    """Return what becomes of a group that another one replaces.

    Args:
        former: the group that goes.
        group: the one that takes its place.
        hosts: of the former group.
        drain_seconds: how long its requests in flight get.
    """
    return (
        f"{former} on {', '.join(hosts)} will be stopped: {_drain(drain_seconds)}, then nothing answers until"
        f" {group} is ready; then {former} is taken away: its units, files, keys and state"
    )


def _drain(seconds: int) -> str:
    return f"requests in flight get up to {seconds} s" if seconds else "requests in flight are cut off"
