"""Stand-in for `vllm serve`: every flag of 0.32.0 and those of 0.33.0 that are planned, read from flags.txt."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_FLAGS = Path(__file__).resolve().parents[2] / "flags.txt"
_TYPES = {"int": int, "float": float, "str": str}


class ServeSubcommand:
    """The `serve` command."""

    name = "serve"

    def subparser_init(self, subparsers: Any) -> argparse.ArgumentParser:
        """Add `serve` to a parser's commands."""
        parser: argparse.ArgumentParser = subparsers.add_parser("serve")
        parser.add_argument("model_tag", nargs="?")
        add_flags(parser)
        return parser

    def validate(self, args: argparse.Namespace) -> None:
        """Refuse what vLLM refuses after parsing."""
        if args.enable_auto_tool_choice and not args.tool_call_parser:
            raise TypeError("Error: --enable-auto-tool-choice requires --tool-call-parser")
        if args.data_parallel_start_rank and args.data_parallel_size_local == 0:
            raise ValueError("data_parallel_start_rank needs local ranks")


def add_flags(parser: argparse.ArgumentParser, *, since: str = "") -> None:
    """Add the flags of flags.txt to a parser, from the one called `since` on."""
    lines = [line for line in _FLAGS.read_text().splitlines() if not line.startswith("#")]
    first = next((number for number, line in enumerate(lines) if line.split()[0] == since), 0)
    for line in lines[first:]:
        names, kind, count, choices = line.split()
        options = names.split(",")
        if kind == "flag":
            _flag(parser, options)
            continue
        extra: dict[str, Any] = {"type": _int if kind == "int" else _TYPES[kind]}
        if count != "-":
            extra["nargs"] = count
        if choices != "-":
            extra["choices"] = choices.split("|")
        parser.add_argument(*options, default=None, **extra)


def _int(text: str) -> int:
    # vLLM takes 25k, 1K, 2M for lengths, and -1 or auto for the longest.
    if text == "auto":
        return -1
    units = {"k": 1000, "K": 1024, "m": 10**6, "M": 2**20}
    return int(float(text[:-1]) * units[text[-1]]) if text[-1:] in units else int(text)


def _flag(parser: argparse.ArgumentParser, options: list[str]) -> None:
    negative = [option for option in options if option.startswith("--no-")]
    positive = [option for option in options if option not in negative]
    dest = next(option for option in positive if option.startswith("--"))[2:].replace("-", "_")
    parser.add_argument(*positive, dest=dest, action="store_true", default=None)
    if negative:
        parser.add_argument(*negative, dest=dest, action="store_false", default=None)


def cmd_init() -> list[ServeSubcommand]:
    """Return the commands, as vLLM's module does."""
    return [ServeSubcommand()]
