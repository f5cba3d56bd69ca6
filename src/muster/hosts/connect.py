"""Connect the hosts of an inventory, for commands that are no pyinfra run."""

from __future__ import annotations

import logging
import signal
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyinfra.api.config import Config
from pyinfra.api.connect import disconnect_all
from pyinfra.api.exceptions import ConnectError, ConnectorDataTypeError
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.context import ctx_config, ctx_host, ctx_state
from pyinfra_cli.util import exec_file

from muster.errors import Refusal
from muster.hosts import interrupts
from muster.hosts.all_hosts import each
from muster.hosts.explain import refusal
from muster.hosts.printable import one_line
from muster.spec.inventory_source import files_of

if TYPE_CHECKING:
    from pyinfra.api.inventory import Inventory


@dataclass
class Connected:
    """An inventory with an SSH session to each host that could be reached.

    Args:
        state: pyinfra's.
        unreached: host -> why it could not be reached.
    """

    state: State
    unreached: Mapping[str, str]


@contextmanager
def connected(
    inventory: Inventory, *, needs_all: bool = False, names: Collection[str] | None = None
) -> Iterator[Connected]:
    """Connect to every host of an inventory at once, or to some of them, and disconnect at the end.

    Args:
        inventory: as `spec.inventory_source.load` returns it; loading it has patched the standard library for gevent.
        needs_all: refuse to go on without a host.
        names: of the hosts; all of them when None.

    Raises:
        Refusal: a host that could not be reached, with `needs_all`; a config.py that cannot be run.
    """
    # Failures are said in words; without a handler Python prints paramiko's tracebacks, after the last line too.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a command in the background ignores it
        interrupts.reach_main(KeyboardInterrupt)
    try:
        state = State(inventory, _config(inventory))
    except ConnectorDataTypeError as error:
        raise Refusal(
            f"the inventory holds {error}", needed="SSH settings of the types that pyinfra takes", fix="correct them"
        ) from error
    ctx_state.set(state)
    try:
        unreached = connect(state, names)
        if needs_all and unreached:
            raise refusal(unreached)
        yield Connected(state, unreached)
    finally:
        disconnect_all(state)


def _config(inventory: Inventory) -> Config:
    """Return pyinfra's configuration (sudo and its like) as the config.py of an inventory sets it."""
    config, files = Config(), files_of(inventory)
    if files is not None and files.config is not None:
        try:
            with ctx_state.use(State()), ctx_config.use(config):
                exec_file(str(files.config))
        except Exception as error:  # a user's own Python
            raise Refusal(f"{files.config} cannot be run: {error}", fix="correct the file") from error
    return config


def connect(state: State, names: Collection[str] | None = None) -> dict[str, str]:
    """Connect to hosts at once; return host -> why, for those that could not be reached.

    Args:
        state: pyinfra's.
        names: of the hosts; all of the inventory when None.
    """

    def one(host: Host) -> str:
        try:
            with ctx_config.use(state.config.copy()), ctx_host.use(host):
                host.connect(show_errors=False, raise_exceptions=True)
        except ConnectError as error:
            return one_line(" ".join(str(part) for part in error.args)) or "no SSH connection"
        except Exception as error:  # a connection can break in as many ways as there are libraries below
            return one_line(f"{type(error).__name__}: {error}")
        state.activate_host(host)
        return ""

    hosts = [host for host in state.inventory if names is None or host.name in names]
    return {name: why for name, why in each(hosts, one).items() if why}
