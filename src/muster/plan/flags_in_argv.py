"""Which flags the words of a command line set, as vLLM's parser reads them."""

from __future__ import annotations

from collections.abc import Sequence

READ = (
    "attention-backend",
    "code-revision",
    "enable-auto-tool-choice",
    "enable-eplb",
    "enable-sleep-mode",
    "gpu-memory-utilization",
    "hf-config-path",
    "kv-cache-dtype",
    "load-format",
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-seqs",
    "model-loader-extra-config",
    "no-trust-remote-code",
    "quantization",
    "safetensors-load-strategy",
    "revision",
    "runner",
    "speculative-config",
    "tokenizer",
    "tokenizer-revision",
    "trust-remote-code",
)
"""Flags whose values the plan reads in the user's words. No other flag of vLLM's is the beginning of one of them."""


def values_of(words: Sequence[str]) -> dict[str, str]:
    """Return flag -> value of command-line words, as vLLM's parser reads them: `--a b`, `--a=b`, `_` for `-`.

    The parser also takes an unambiguous beginning of a name; those of `READ` are written out. A flag without a value
    has the value "".
    """
    found: dict[str, str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            name = _written_out(flag.replace("_", "-"))
            found.pop(name, None)  # the last one wins, and stands last
            found[name] = value
            if equals:
                name = ""
        elif name:
            found[name] = word
            name = ""
    return found


def _written_out(name: str) -> str:
    beginning, dot, field = name.partition(".")
    if len(beginning) < 3 or beginning in READ:
        return name
    flags = [flag for flag in READ if flag.startswith(beginning)]
    return f"{flags[0]}{dot}{field}" if len(flags) == 1 else name
