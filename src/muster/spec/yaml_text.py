"""YAML of strangers, read within bounds: size, depth, no aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from muster.errors import Refusal

# libyaml reads a recipe in 2 ms instead of 60; PyYAML's wheels carry it, some distributions' packages do not.
LARGEST = 1 << 20
_DEEPEST = 20
_TYPED = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXTS = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def read(path: Path, *, what: str, texts: bool = False) -> Any:
    """Return what a YAML file holds.

    Args:
        path: of the file.
        what: it is, for messages.
        texts: leave every value a text: `on`, `1.10` and dates are words then, as in YAML 1.2.

    Raises:
        Refusal: it cannot be read, is too large or too deep, has an alias, or is no YAML.
    """
    loader = _TEXTS if texts else _TYPED
    try:
        if path.stat().st_size > LARGEST:
            raise Refusal(f"{path} has {path.stat().st_size:,} bytes", needed=f"a {what} of at most {LARGEST:,}")
        text = path.read_text(encoding="utf-8")
        _check_nesting(text, where=str(path), what=what)
        return yaml.load(text, Loader=loader)
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}", needed=f"a readable {what} file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # YAML's dates and numbers raise ValueError
        raise Refusal(f"{path}: not YAML: {str(error)[:1000]}", fix="correct the file") from None


def _check_nesting(text: str, *, where: str, what: str) -> None:
    """Refuse YAML that a parser cannot build: libyaml recurses without a limit, and aliases multiply."""
    depth = 0
    for event in yaml.parse(text, Loader=_TYPED):
        if isinstance(event, yaml.AliasEvent):
            raise Refusal(f"{where}: has a YAML alias", needed="every value written out", fix="write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise Refusal(f"{where}: nests deeper than {_DEEPEST}", needed=f"a {what}; real ones are half as deep")
