"""Stand-in for vLLM's parser: dashes and underscores mean the same, prefixes are taken."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class FlexibleArgumentParser(argparse.ArgumentParser):
    """The parser that `vllm` builds."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        words = [_dashes(word) for word in args] if args is not None else None
        return super().parse_known_args(words, namespace)


def _dashes(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, sep, value = word.partition("=")
    return name.replace("_", "-") + sep + value
