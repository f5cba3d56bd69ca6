"""pyinfra's decorators and context, with types: what `@operation` and `@deploy` make of a function, who runs it now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

from pyinfra.api.command import PyinfraCommand
from pyinfra.api.deploy import deploy
from pyinfra.api.host import Host
from pyinfra.api.operation import OperationMeta
from pyinfra.api.operation import operation as pyinfra_operation
from pyinfra.api.state import State
from pyinfra.context import ctx_host, ctx_state

Generator = Callable[..., Iterator[PyinfraCommand]]
Stage = TypeVar("Stage", bound=Callable[..., Any])


def operation(function: Generator) -> Callable[..., OperationMeta]:
    """Make an operation: it takes the function's arguments and pyinfra's own (`name`, `_if`, ...)."""
    return cast("Callable[..., OperationMeta]", pyinfra_operation()(cast("Any", function)))


def stage(name: str) -> Callable[[Stage], Stage]:
    """Make a deploy whose operations are named after it."""

    def decorate(function: Stage) -> Stage:
        return cast("Stage", deploy(name)(function))

    return decorate


def current_host() -> Host:
    """Return the host that deploy code or a generator is running for."""
    return cast("Host", ctx_host.get())


def operation_name(state: State, operation: str) -> str:
    """Return an operation's name for people, by its hash: `Engine: vLLM 0.33.0 is installed`."""
    return " / ".join(sorted(state.get_op_meta(operation).names)).replace(" | ", ": ")


def current_state() -> State:
    """Return pyinfra's state."""
    return cast("State", ctx_state.get())
