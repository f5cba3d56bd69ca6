"""Change: the lock before anything is changed, the record before each step that stops or starts ranks, and the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from muster.deploys.place_files import commit_request
from muster.deploys.shared.group_run import GroupRun
from muster.deploys.shared.progress import Progress
from muster.deploys.shared.transaction import Errors, Return, Transaction
from muster.hosts import operations
from muster.hosts.pyinfra_types import current_host, stage
from muster.hosts.run_words import words
from muster.hosts.say import fail
from muster.plan.change import Phase


@stage("Change")
def lock(progress: Progress, back: Return) -> None:
    """Take the group's lock on every host, or on none; nothing to do where this run changes nothing.

    Args:
        progress: the group's.
        back: host -> what brings its ranks back should the change be cut.
    """
    transaction = progress.transaction
    if transaction is not None:
        transaction.back = back
        question = FunctionCommand(_take, [transaction], {})
        progress.note(current_host(), "the lock", operations.holds(question, name="nobody else changes the group"))


def stays(_host: str) -> None:
    """Bring no rank back: the change stops none, or its ranks are to stay down."""


def returns(run: GroupRun, host: str) -> dict[str, Any] | None:
    """Return what brings a host back when a deploy is cut: its units, and the files that wait beside their places."""
    if not run.decision.restart:
        return None
    planned = run.plan.hosts[host]
    units = {*planned.units, *run.observations[host]["units"]} - {*planned.beside}
    return back(host == run.plan.head.name, units, commit=commit_request(run, host))


def back(
    is_head: bool, units: Iterable[str], *, kept: str = "", commit: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what `on_host.return_change` reads of a change.

    Args:
        is_head: whether the host is the group's head.
        units: of both plans there.
        kept: digest of the kept plan that is put in place, if it is one.
        commit: request of `place_files` that puts the new plan in place; None where the change puts no file in place.
    """
    return {"is_head": is_head, "units": sorted(units), "kept": kept, "commit": commit or {"files": []}}


@stage("Change")
def record(progress: Progress, phase: Phase) -> None:
    """Record on every host that a phase begins."""
    transaction = progress.transaction
    if transaction is not None:
        question = FunctionCommand(_did, [lambda: _record(transaction, phase)], {})
        name = f"every host has recorded the change as {phase}"
        progress.note(current_host(), f"record {phase}", operations.holds(question, name=name))


@stage("Change")
def finish(progress: Progress) -> None:
    """End the change: what runs is proven, and hosts forget its record."""
    transaction = progress.transaction
    if transaction is not None:
        question = FunctionCommand(_did, [lambda: _finish(transaction)], {})
        progress.note(current_host(), "the end", operations.holds(question, name="the change is finished"))


def _take(state: State, host: Host, transaction: Transaction) -> bool:
    errors = transaction.take(state)
    if errors:
        # The same words for every host: once is enough.
        if host.name in list(errors)[:1]:
            fail(host, errors[host.name])
        words.fail(next(iter(errors.values())).splitlines()[0])
        words.refuse()
    else:
        words.truths[transaction.change.group] = lambda: transaction.sentence
        words.touched = words.touched or transaction.ended_exchange
    return not errors


def _record(transaction: Transaction, phase: Phase) -> Errors:
    errors = transaction.record(phase)
    words.touched = words.touched or not errors
    return errors


def _finish(transaction: Transaction) -> Errors:
    errors = transaction.finish()
    if not errors:
        words.truths.pop(transaction.change.group, None)
    return errors


def _did(_state: State, host: Host, work: Callable[[], Errors]) -> bool:
    errors = work()
    if host.name in errors:
        fail(host, errors[host.name])
        words.fail(f"{host.name}: {errors[host.name]}")
    elif errors:
        fail(host, f"{', '.join(errors)} could not record it")
    return not errors
