"""What subcommands share: INVENTORY and RECIPE, settings from `--data`, the ledger, the form of the output."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from muster.errors import Refusal
from muster.hosts.run_options import RunOptions

Command = Callable[..., Any]


def parse_data(pairs: Sequence[str]) -> dict[str, Any]:
    """Read `--data name=value` as pyinfra does: booleans, numbers and JSON, else text.

    Raises:
        Refusal: a word without `=`.
    """
    from pyinfra_cli.util import parse_cli_arg

    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise Refusal(f"--data {pair}", needed="name=value", fix=f"write --data {pair}=…")
        values[name] = parse_cli_arg(value)
    return values


def means_all_groups(recipe_name: str | None, overrides: Mapping[str, Any]) -> bool:
    """Whether a command was given neither RECIPE nor a group, and is about every group of INVENTORY."""
    return recipe_name is None and "group" not in overrides


def over_inventory(*, group: bool = True, strategy: bool = False) -> Callable[[Command], Command]:
    """Give a command INVENTORY, RECIPE and `--data`, as `inventory_file`, `recipe_name` and `overrides`.

    Args:
        group: whether it can be about one group: RECIPE, which None leaves to the group's data, and `--group`.
        strategy: whether `--strategy` is an option too. It ends up among the overrides, and so does `--group`.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_overrides(
            *args: Any, data: Sequence[str], strategy: str | None = None, group: str | None = None, **rest: Any
        ) -> Any:
            overrides = parse_data(data) | ({"strategy": strategy} if strategy else {})
            overrides |= {"group": group} if group else {}
            return command(*args, overrides=overrides, **rest)

        decorated: Command = click.option(
            "--data", multiple=True, metavar="K=V", help="A setting, as pyinfra's --data."
        )(with_overrides)
        if strategy:
            words = "One of the recipe's, such as tp, tp-pp or dp-ep; its default for the GPUs otherwise."
            decorated = click.option("--strategy", help=words)(decorated)
        if group:
            words = "One of the groups of an inventory that has several; else its group's name, as --data group=NAME."
            decorated = click.option("--group", metavar="NAME", help=words)(decorated)
            decorated = click.argument("recipe_name", metavar="[RECIPE]", required=False)(decorated)
        return click.argument("inventory_file", metavar="INVENTORY", type=click.Path())(decorated)

    return decorate


def recipe_and_plans(
    recipe: str | None, *plans: str | None, overrides: Mapping[str, Any]
) -> tuple[str | None, list[str]]:
    """Return RECIPE and the PLANs after it: where a group is named, the first word may be a plan's digest already."""
    given = [plan for plan in plans if plan]
    if recipe and "group" in overrides and re.fullmatch("[0-9a-f]+", recipe):
        return None, [recipe, *given]
    return recipe, given


def over_run(command: Command) -> Command:
    """Give a command that runs a deploy `--dry`, `--diff`, `-y` and `-v`, together as `run`."""

    @wraps(command)
    def with_options(*args: Any, dry: bool, diff: bool, yes: bool, verbose: bool, **rest: Any) -> Any:
        return command(*args, run=RunOptions(dry=dry, diff=diff, yes=yes, verbose=verbose), **rest)

    flags = (
        click.option("-v", "--verbose", is_flag=True, help="Print every line of every host."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask before what serves is stopped."),
        click.option("--diff", is_flag=True, help="Show how files differ."),
        click.option("--dry", is_flag=True, help="Say what would change, and change nothing."),
    )
    decorated: Command = with_options
    for flag in flags:
        decorated = flag(decorated)
    return decorated


def output_format(*forms: str) -> Callable[[Command], Command]:
    """Give a command `--format` as `form`; the first of `forms` is the default."""
    return click.option("--format", "form", type=click.Choice(forms), default=forms[0], show_default=True)


def against(command: Command) -> Command:
    """Give a command `--against`."""
    where = "Ledger file or directory, or a session, plan digest or release."
    return click.option("--against", metavar="BASELINE", help=where)(command)


def ledger(command: Command) -> Command:
    """Give a command `--ledger` as `ledger_path`."""
    option = click.option(
        "--ledger",
        "ledger_path",
        type=click.Path(path_type=Path),
        default="ledger",
        show_default=True,
        help="Directory of kept runs.",
    )
    return option(command)
