"""Whether a command line runs a model's own Python code, and whether that code is fixed to one commit."""

from __future__ import annotations

import re
from collections.abc import Sequence

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ON, _OFF = "--trust-remote-code", "--no-trust-remote-code"
_VALUES = ("--revision", "--code-revision", "--tokenizer", "--tokenizer-revision")


def unpinned(argv: Sequence[str], model: str) -> str | None:
    """Return why the code that a command line trusts can change without anybody deploying; None when it cannot.

    A model given as a directory is fixed: muster stages one by revision, and what else lies on a host is its owner's.

    Args:
        argv: of `vllm serve`, whole, so that what `extra_args` says counts too.
        model: repository or directory that is served.
    """
    given: dict[str, str] = {}
    trusted = False
    for number, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        if flag in (_ON, _OFF):
            trusted = flag == _ON
        elif flag in _VALUES:
            given[flag] = value if equals else next(iter(argv[number + 1 :]), "")
    if not trusted:
        return None
    if not model.startswith("/") and "--revision" not in given:
        return f"{model} runs its own code (--trust-remote-code) at no pinned revision"
    tokenizer = given.get("--tokenizer", "/")
    if not tokenizer.startswith("/") and "--tokenizer-revision" not in given:
        return f"the tokenizer {tokenizer} runs its own code (--trust-remote-code) at no pinned revision"
    for flag in _VALUES:
        if flag.endswith("revision") and flag in given and not _COMMIT.fullmatch(given[flag]):
            return f"{model} runs its own code (--trust-remote-code), and {flag} {given[flag]} is no commit"
    return None
