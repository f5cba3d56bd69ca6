"""Stand-in for `vllm preload`: the engine's flags of `vllm serve`, and where the daemons listen."""

from __future__ import annotations

import argparse
from typing import Any

from vllm.entrypoints.cli.serve import add_flags

FIRST_OF_ENGINE = "--model"
"""In flags.txt the flags of the API server come first; `preload` has none of them."""


class PreloadSubcommand:
    """The `preload` command."""

    name = "preload"

    def subparser_init(self, subparsers: Any) -> argparse.ArgumentParser:
        """Add `preload` to a parser's commands."""
        parser: argparse.ArgumentParser = subparsers.add_parser("preload")
        add_flags(parser, since=FIRST_OF_ENGINE)
        parser.add_argument("--weight-cache-socket-dir")
        parser.add_argument("--weight-cache-health-host", default="0.0.0.0")
        for flag in ("master-port", "draft-master-port", "health-port"):
            parser.add_argument(f"--weight-cache-{flag}", type=int)
        return parser

    def validate(self, args: argparse.Namespace) -> None:
        """Refuse what vLLM refuses after parsing."""
        if args.load_format == "ipc_cache":
            raise ValueError("The weight cache daemon itself must load from disk; use the default --load-format")


def cmd_init() -> list[PreloadSubcommand]:
    """Return the commands, as vLLM's module does."""
    return [PreloadSubcommand()]
