"""Whether an engine's own parser takes every planned command line, for an engine that the sandbox has no build of.

    python benchmarks/parsed.py --commands FILE --version 0.33.0      where muster is: write the command lines
    ENGINE/bin/python benchmarks/parsed.py --read FILE --out FILE     where the engine is: read them, no GPU is opened

The tests do the same with the sandbox's CPU build (tests/engine/test_real_vllm.py). --out gets the number that was
taken, and each that was refused with the parser's words; the exit status is 1 where one was.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOMES = ("vllm.entrypoints.common.cli_args", "vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
"""Where vLLM has had the server's parser: 0.33, 0.32, before."""


def write(out: Path, version: str) -> None:
    """Write every command line with words that say which it is."""
    sys.path[:0] = [str(ROOT)]
    from tests.engine import commands

    from muster.plan import kept_weights, preload_argv, vllm_versions

    cases = [*commands.shipped(version), *commands.imported(version), *commands.catalogue()]
    if vllm_versions.version_of(version) >= kept_weights.SINCE:
        listening = preload_argv.listening("/run/muster-weights/0/0", 29621, 29623)
        cases += [(f"{case}, its weights kept", (*preload_argv.preload(argv), *listening)) for case, argv in cases]
    out.write_text(json.dumps(cases), encoding="utf-8")


def read(commands: Path) -> dict[str, Any]:
    """Have the installed engine's parser read them."""
    import vllm
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parsers = {"serve": _maker()(FlexibleArgumentParser())}
    with contextlib.suppress(ImportError):  # before 0.33 there is none
        parsers["preload"] = FlexibleArgumentParser()
        preload = importlib.import_module("vllm.entrypoints.cli.preload")
        preload.PreloadSubcommand.add_cli_args(parsers["preload"])
    taken, refused = 0, []
    for case, argv in json.loads(commands.read_text(encoding="utf-8")):
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                parsers[argv[1]].parse_args(argv[2:])
            taken += 1
        except (SystemExit, ValueError, TypeError) as error:
            refused.append({"case": case, "argv": argv, "said": said.getvalue()[-400:] or str(error)[-400:]})
    return {"vllm": vllm.__version__, "taken": taken, "refused": refused}


def _maker() -> Any:
    for home in HOMES:
        with contextlib.suppress(ImportError):
            return importlib.import_module(home).make_arg_parser
    raise SystemExit(f"this vLLM has its parser in none of {', '.join(HOMES)}")


def main() -> int:
    """Write or read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=Path)
    parser.add_argument("--version", default="0.33.0")
    parser.add_argument("--read", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.commands:
        write(args.commands, args.version)
        return 0
    if not args.read or not args.out:
        parser.error("--commands FILE, or --read FILE and --out FILE")
    result = read(args.read)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"vLLM {result['vllm']}: {result['taken']} taken, {len(result['refused'])} refused")
    return int(bool(result["refused"]))


if __name__ == "__main__":
    sys.exit(main())
