"""The `muster` command."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from muster import __version__
from muster.errors import Refusal

# Subcommand -> where it lives. Loaded on use: `muster plan` need not wait for the imports of the others.
COMMANDS = {
    "import": "muster.commands.import_recipe:import_recipe",
    "recipe": "muster.commands.recipe:recipe",
    "plan": "muster.commands.plan:plan",
    "deploy": "muster.commands.deploy:deploy",
    "rollback": "muster.commands.deploy:rollback",
    "stop": "muster.commands.deploy:stop",
    "restart": "muster.commands.deploy:restart",
    "resume": "muster.commands.deploy:resume",
    "stage": "muster.commands.deploy:stage",
    "remove": "muster.commands.remove:remove",
    "status": "muster.commands.status:status",
    "top": "muster.commands.top:top",
    "logs": "muster.commands.logs:logs",
    "events": "muster.commands.events:events",
    "history": "muster.commands.history:history",
    "diff": "muster.commands.diff:diff",
    "preflight": "muster.commands.preflight:preflight",
    "drift": "muster.commands.preflight:drift",
    "pin": "muster.commands.pin:pin",
    "weights": "muster.commands.weights:weights",
    "bundle": "muster.commands.bundle:bundle",
    "bench": "muster.commands.bench:bench",
    "eval": "muster.commands.eval:evaluate",
    "report": "muster.commands.report:report",
    "monitoring": "muster.commands.monitoring:monitoring",
    "edge": "muster.commands.edge:edge",
    "key": "muster.commands.key:key",
    "sandbox": "muster.commands.sandbox:sandbox",
}


class _Cli(click.Group):
    """Prints refusals without a traceback and exits with 2, as for any other wrong input; with 130 when interrupted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Refusal as refusal:
            click.echo(f"muster: {refusal}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("muster: interrupted", err=True)
            sys.exit(130)


@click.group(cls=_Cli, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Bare-metal GPU hosts to a serving vLLM cluster.

    \b
    muster plan inventories/h800-16.py kimi-k2-instruct     what every host would get, no host in reach
    muster deploy inventories/h800-16.py kimi-k2-instruct   bring it up; a second run changes nothing
    muster sandbox up                                       two real systemd hosts on this machine
    """
