"""Whether a command line runs a model's own Python code, and whether that code is fixed to one commit.

Every repository that the engine loads code from counts: the model, its tokenizer, the draft model of speculative
decoding, a configuration from elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from muster.errors import Refusal
from muster.on_host.transfer_store import is_commit
from muster.plan.flags_in_argv import values_of

_ON, _OFF = "trust-remote-code", "no-trust-remote-code"
_REVISIONS = ("revision", "code-revision", "tokenizer-revision")
_SPECULATIVE = ("speculative-config", "sc")


@dataclass(frozen=True)
class Draft:
    """The draft model of speculative decoding.

    Args:
        model: repository or directory.
        revision, code_revision: as `--speculative-config` has them; None where it says nothing.
    """

    model: str
    revision: str | None = None
    code_revision: str | None = None


def judged(pin_command: str, argv: Sequence[str], model: str, *, allowed: bool) -> tuple[list[str], str | None]:
    """Return warnings about code that can change by itself, and why such a plan is refused.

    Args:
        pin_command: that gives the model a commit.
        argv, model: as `unpinned` takes them.
        allowed: whether such a plan may be deployed (`allow_unpinned_code`).
    """
    found = unpinned(argv, model)
    if found is None:
        return [], None
    if allowed:
        return [f"{found}; allow_unpinned_code is set"], None
    mend = f"{pin_command}, or set revision to a commit"
    if found.startswith("the draft model"):
        mend = "give its revision in --speculative-config, or a directory that every host has"
    refusal = Refusal(
        found,
        needed="a commit of 40 hexadecimal digits: the code that runs on every host is then the code that was reviewed",
        fix=f"{mend} (allow_unpinned_code lets it pass)",
    )
    return [], str(refusal)


def unpinned(argv: Sequence[str], model: str) -> str | None:
    """Return why the code that a command line trusts can change without anybody deploying; None when it cannot.

    A model given as a directory is fixed: muster stages one by revision, and what else lies on a host is its owner's.

    Args:
        argv: of `vllm serve`, whole, so that what `extra_args` says counts too.
        model: repository or directory that is served.
    """
    given = values_of(argv)
    order = [name for name in given if name in (_ON, _OFF)]
    if not order or order[-1] == _OFF:
        return None
    if not model.startswith("/") and "revision" not in given:
        return f"{model} runs its own code (--trust-remote-code) at no pinned revision"
    tokenizer = given.get("tokenizer", "/")
    if not tokenizer.startswith("/") and "tokenizer-revision" not in given:
        return f"the tokenizer {tokenizer} runs its own code (--trust-remote-code) at no pinned revision"
    for name in _REVISIONS:
        if name in given and not is_commit(given[name]):
            return f"{model} runs its own code (--trust-remote-code), and --{name} {given[name]} is no commit"
    other = given.get("hf-config-path", "/")
    if not other.startswith("/"):
        return f"--hf-config-path {other} runs its own code (--trust-remote-code) at no pinned revision"
    found = draft(argv)
    return None if found is None else _unpinned_draft(found)


def _unpinned_draft(found: Draft) -> str | None:
    if found.model.startswith("/"):
        return None
    for name, value in (("revision", found.revision), ("code_revision", found.code_revision)):
        if value is None and name == "revision":
            return f"the draft model {found.model} runs its own code (--trust-remote-code) at no pinned revision"
        if value is not None and not is_commit(value):
            return f"the draft model {found.model} runs its own code, and its {name} {value} is no commit"
    return None


def draft(argv: Sequence[str]) -> Draft | None:
    """Return the draft model that a command line speculates with; None where it has none of its own.

    Args:
        argv: of `vllm serve`; `--speculative-config` as JSON, with dots, or in its short form.
    """
    config: dict[str, object] = {}
    given = values_of([f"-{word}" if re.match(r"-sc\b", word) else word for word in argv])
    for name, value in given.items():
        flag, _, key = name.partition(".")
        if flag not in _SPECULATIVE:
            continue
        if key:
            config[key.replace("-", "_")] = value
        else:
            config |= read(value)
    model = config.get("model")
    if not isinstance(model, str) or not model:
        return None
    return Draft(model, _text(config.get("revision")), _text(config.get("code_revision")))


def read(text: str) -> Mapping[str, object]:
    """Return what a JSON text of `--speculative-config` holds; nothing of any other text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
