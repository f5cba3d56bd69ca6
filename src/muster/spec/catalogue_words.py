"""Words of a command line in vLLM's recipe catalogue -> flags, sizes and a served name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from muster.errors import shown
from muster.spec.catalogue_text import number

_SHORT = {"-tp": "tensor-parallel-size", "-dp": "data-parallel-size", "-pp": "pipeline-parallel-size"}
_DECIDED = {"host", "port", "headless", "nnodes", "node-rank", "master-addr", "master-port", "data-parallel-address"}
_SIZE_FLAGS = {"tensor-parallel-size": "tp", "pipeline-parallel-size": "pp", "decode-context-parallel-size": "dcp"}


class NotCarried(ValueError):
    """A word that no recipe can hold.

    Args:
        found: the word, in words.
        needed: what could be carried over.
    """

    def __init__(self, found: str, needed: str) -> None:
        super().__init__(found)
        self.found, self.needed = found, needed


@dataclass
class Words:
    """What the words of one command line say.

    Args:
        flags: name -> value; True for a flag without one.
        sizes: as a recipe's `sizes`.
        served: name in the API; "" where none is given.
        left_out: one line for each word that the plan decides.
        files: paths of files that come with the recipe; their flags hold the name alone.
    """

    flags: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    served: str = ""
    left_out: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def read(words: Sequence[str], files: Collection[str] = ()) -> Words:
    """Return what the words of a command line say.

    Args:
        words: as the catalogue has them.
        files: paths, as the catalogue writes them, of files that come with the recipe.

    Raises:
        NotCarried: a file of its own, or a word that is not read here.
    """
    said = Words()
    for name, value in _pairs(words):
        if name.endswith("-plugin") or (name == "chat-template" and "{" not in value):
            if value in files:
                said.flags[name] = value.rpartition("/")[2]
                said.files.append(value)
                continue
            raise NotCarried(f"a file of its own: --{name} {shown(value)}", "flags and variables alone")
        if name.startswith("-") or "$" in value:
            raise NotCarried(f"a word that muster does not read: {shown(name)} {shown(value)}", "long flags")
        if name == "served-model-name":
            said.served = value
        elif name in _DECIDED:
            said.left_out.append(f"--{name} left out: the plan decides it")
        elif name == "enable-expert-parallel":
            said.sizes["ep"] = True
        elif name == "data-parallel-hybrid-lb":
            said.left_out.append("--data-parallel-hybrid-lb left out: a strategy says who answers")
        elif name in _SIZE_FLAGS:
            said.sizes[_SIZE_FLAGS[name]] = number(value) or value
        elif name == "data-parallel-size":
            said.sizes["dp"] = number(value) or "all"
        elif name == "data-parallel-size-local":
            said.left_out.append("--data-parallel-size-local left out: it follows from the hosts")
        else:
            said.flags[name] = value if value else True
    return said


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield flag and value; "" for a flag without one. A word that belongs to no flag comes with its dash."""
    waiting = ""
    split = [part for word in words for part in (word.split(" ", 1) if word.startswith("--") else [word])]
    for word in [*split, "--"]:
        if waiting and not word.startswith("--") and word not in _SHORT:
            yield waiting, word
            waiting = ""
            continue
        if waiting:
            yield waiting, ""
            waiting = ""
        if word == "--":
            continue
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if name in _SHORT.values() or name.startswith("--"):
            beginning, dot, field = name.removeprefix("--").partition(".")
            name = beginning.replace("_", "-") + dot + field
            if equals:
                yield name, value
            else:
                waiting = name
        else:
            yield f"-{word}", ""
