"""Stand-in for the `vllm` command."""

from __future__ import annotations

import sys
from typing import Any

from vllm import __version__
from vllm.entrypoints.cli import preload as preload_command
from vllm.entrypoints.cli.serve import cmd_init
from vllm.standin.head import serve
from vllm.standin.weights import preload
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> int:
    """Parse the command line as vLLM does and serve."""
    parser = FlexibleArgumentParser(prog="vllm")
    parser.add_argument("-v", "--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="subparser", required=True)
    known: dict[str, Any] = {command.name: command for command in (*cmd_init(), *preload_command.cmd_init())}
    for command in known.values():
        command.subparser_init(commands)
    if sys.argv[1:2] == ["serve"] and sys.argv[2:3] and sys.argv[2].startswith("-") and "--help" not in sys.argv:
        # Seen on 0.32.0: the model must stand before any flag.
        raise ValueError("With `vllm serve`, you should provide the model as a positional argument first")
    args = parser.parse_args()
    known[args.subparser].validate(args)
    return preload(args) if args.subparser == "preload" else serve(args)


if __name__ == "__main__":
    sys.exit(main())
