"""One deploy through pyinfra's own phases, for the commands of `muster`: connect, prepare, ask, execute.

It does what `pyinfra INVENTORY deploys/X.py` does, with the settings files beside and above the inventory, whatever
directory it runs in; what it prints is muster's own.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pyinfra
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.operations import run_ops
from pyinfra.api.output import set_echo, set_formatter
from pyinfra.api.state import State, StateStage
from pyinfra.context import ctx_config, ctx_host

from muster.errors import Refusal
from muster.hosts import say
from muster.hosts.all_hosts import each
from muster.hosts.connect import connected
from muster.hosts.explain import refusal
from muster.hosts.pyinfra_types import operation_name
from muster.hosts.run_display import RunDisplay
from muster.hosts.run_options import RunOptions, as_typed
from muster.hosts.run_words import DONE, FAILED, INTERRUPTED, FailureNotice, words
from muster.spec import inventory, inventory_source

_PYINFRA = str(Path(pyinfra.__file__).parent)


def run_deploy(
    inventory_file: str,
    overrides: Mapping[str, Any],
    deploy: Callable[[], None],
    options: RunOptions,
    *,
    recipe: str | None = None,
    several: bool = False,
    edges: bool = False,
) -> int:
    """Run a deploy on the hosts of a group and return the exit status; the last line printed is its outcome.

    Args:
        inventory_file: its path.
        overrides: settings that beat the rest (`--data`).
        deploy: called once for each host, as a deploy file is; calls operations.
        options: how.
        recipe: as the user named it.
        several: whether the deploy takes all groups of an inventory where none is named.
        edges: whether it asks the edges before the group too, in an inventory of several groups.
    """
    words.begin(as_typed(inventory_file, recipe, overrides))
    display = RunDisplay(verbose=options.verbose)
    status = FAILED
    try:
        with _as_pyinfra_command(display, verbose=options.verbose):
            hosts = inventory_source.load(inventory_file, overrides)
            whole = several and recipe is None and "group" not in overrides
            names = None if whole else _meant(hosts, recipe, edges=edges)
            status = _run(hosts, names, deploy, options, display)
    except Refusal as found:
        display.line(f"muster: {found}", important=True)
        words.refuse()
        status = words.status
    except (KeyboardInterrupt, click.Abort):
        words.interrupt()
        status = INTERRUPTED
    finally:
        display.close()
    words.say()
    return status


def _meant(hosts: Inventory, recipe: str | None, *, edges: bool) -> Collection[str] | None:
    """Return the names of the hosts that are connected; None for all.

    Raises:
        Refusal: as `scope_of`.
    """
    scope = inventory.scope_of(hosts, recipe)
    if not scope.group:
        return None
    return scope.members | ({*inventory.edges_if_any(hosts)} if edges else set())


def _run(
    hosts: Inventory,
    names: Collection[str] | None,
    deploy: Callable[[], None],
    options: RunOptions,
    display: RunDisplay,
) -> int:
    with connected(hosts, names=names) as there:
        state = there.state
        if not state.active_hosts:
            raise refusal(dict(there.unreached))
        state.config.DIFF = options.diff
        state.set_stage(StateStage.Prepare)
        _prepare(state, deploy)
        steps = _steps(state)
        display.changes(bool(steps) or options.dry)
        if options.dry:
            _show(display, state, steps)
            return DONE
        _ask(options)
        return _execute(state, steps, display)


def _prepare(state: State, deploy: Callable[[], None]) -> None:
    """Run the deploy's own code for every host.

    Raises:
        Refusal: it has refused, on whichever host.
    """

    def one(host: Host) -> PyinfraError | None:
        try:
            with ctx_config.use(state.config.copy()), ctx_host.use(host):
                deploy()
        except PyinfraError as error:
            return error
        return None

    answers = each(state.inventory.get_active_hosts(), one)
    for error in answers.values():
        if error is not None:
            raise Refusal(str(error)) from error


def _steps(state: State) -> dict[str, list[str]]:
    """Return operation -> hosts that it would change, for those that would change any."""
    steps: dict[str, list[str]] = {}
    for operation in state.get_op_order():
        changed = [
            host.name
            for host in state.inventory
            if operation in state.ops[host] and state.ops[host][operation].operation_meta.will_change
        ]
        if changed:
            steps[operation] = changed
    return steps


def _show(display: RunDisplay, state: State, steps: Mapping[str, list[str]]) -> None:
    for question in words.questions:
        display.line(question)
    for operation, hosts in steps.items():
        display.line(f"would do  {operation_name(state, operation)} ({', '.join(hosts)})")
    words.outcomes[:] = [f"dry run: {'nothing was touched' if steps else 'nothing to do'}"]


def _ask(options: RunOptions) -> None:
    """Ask before what serves is stopped.

    Raises:
        Refusal: the answer is no, or there is nobody to ask.
    """
    if not words.questions or options.yes:
        return
    text = "\n".join(words.questions)
    if not sys.stdin.isatty():
        raise Refusal(
            text, needed="a yes, and there is no terminal to ask at", fix="run it again with -y, or from a terminal"
        )
    click.echo(text, err=True)
    if not click.confirm("Go on?", err=True):
        raise Refusal("not confirmed")


def _execute(state: State, steps: Mapping[str, list[str]], display: RunDisplay) -> int:
    state.add_callback_handler(_Watched(display, steps))
    state.set_stage(StateStage.Execute)
    try:
        run_ops(state)
    except PyinfraError as error:  # mostly that no host is left, which the failed step has said
        if not state.failed_hosts:
            words.fail(str(error))
    if state.failed_hosts and not words.failures:
        words.fail(f"{', '.join(sorted(host.name for host in state.failed_hosts))} failed")
    return words.status


class _Watched(FailureNotice):
    """Shows each step that changes something, and each that fails."""

    def __init__(self, display: RunDisplay, steps: Mapping[str, list[str]]) -> None:
        self._display, self._steps = display, steps
        self._failed: set[str] = set()
        """Hosts that do no further step."""

    def operation_start(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        self._display.step(operation_name(state, op_hash))

    def operation_host_error(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        self._failed.add(host.name)
        self._display.step_failed(operation_name(state, op_hash), host.name)
        super().operation_host_error(state, host, op_hash)

    def operation_end(self, state: State, op_hash: str) -> None:  # type: ignore[override]
        done = [host for host in self._steps.get(op_hash, ()) if host not in self._failed]
        if done:
            self._display.step_done(operation_name(state, op_hash), done)


class _Lines(logging.Handler):
    """Passes log lines on to the display; pyinfra's own news of each operation is left out."""

    def __init__(self, display: RunDisplay, *, verbose: bool) -> None:
        super().__init__(logging.DEBUG if verbose else logging.INFO)
        self._display, self._verbose = display, verbose

    def emit(self, record: logging.LogRecord) -> None:
        own = not record.pathname.startswith(_PYINFRA)
        # A plan's warnings are news of a run that changes something; pyinfra's are news of any.
        important = record.levelno >= (logging.ERROR if own else logging.WARNING)
        chatter = not own and (not important or record.funcName == "log_error_or_warning")
        if self._verbose or not chatter:
            colour = {logging.WARNING: "yellow", logging.ERROR: "red"}.get(record.levelno)
            text = record.getMessage()
            self._display.line(click.style(text, fg=colour) if colour else text, important=important)


@contextmanager
def _as_pyinfra_command(display: RunDisplay, *, verbose: bool) -> Iterator[None]:
    """Set pyinfra up as its own command does: order of operations from the call stack, and output, which goes here."""
    os.environ["PYINFRA_PROGRESS"] = "off"  # its spinner
    sys.dont_write_bytecode = True  # of group_data and its like
    handler, before = _Lines(display, verbose=verbose), (pyinfra.logger.level, pyinfra.logger.propagate)
    pyinfra.logger.setLevel(logging.INFO)
    pyinfra.logger.addHandler(handler)
    pyinfra.logger.propagate = False
    pyinfra.is_cli = True
    set_formatter(click.style)
    set_echo(lambda message=None, **_: display.line(str(message)))
    try:
        with say.progress_shown_by(lambda host, line: display.progress(host.name, line)):
            yield
    finally:
        pyinfra.is_cli = False
        pyinfra.logger.removeHandler(handler)
        pyinfra.logger.level, pyinfra.logger.propagate = before
