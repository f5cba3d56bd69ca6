"""Types that users write; a pydantic error becomes a refusal that names the key and, if misspelt, the nearest one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from muster.errors import Refusal, shown, unknown
from muster.spec import plain_secrets


class Frozen(BaseModel):
    """Base of types that users write: nothing changes, and a key that is not known is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def refusal_of(
    error: ValidationError, model: type[BaseModel], *, where: str, what: str, unwritten: Collection[str] = ()
) -> Refusal:
    """Turn pydantic's first error into a refusal that names the key and, if misspelt, the nearest one.

    Args:
        error: pydantic's.
        model: that was validated.
        where: file name.
        what: kind of key, such as `setting`.
        unwritten: keys at the top that users do not write: what is below them is written without.
    """
    first = error.errors()[0]
    path = [shown(str(part)) for part in first["loc"]]
    path = path[1:] if path[:1] and path[0] in unwritten else path
    if first["type"] == "extra_forbidden":
        return unknown(what, path[-1], _fields_at(model, path[:-1]), where=where)
    if first["type"] == "missing":
        return Refusal(f"{where}: {'.'.join(path)} is missing", needed=f"{what} '{path[-1]}'", fix=f"set '{path[-1]}'")
    key = next((part for part in reversed(path) if not part.isdigit()), what)
    needed = first["msg"].removeprefix("Value error, ")
    return Refusal(
        f"{where}: {'.'.join(path)} is {plain_secrets.literal_of(key, first.get('input'))}",
        needed=needed,
        fix=f"set '{key}'",
    )


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys allowed at a nested place of a model; mappings of models are stepped through."""
    current: Any = model
    for part in path:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[part].annotation
        inner = [arg for arg in getattr(current, "__args__", ()) if isinstance(arg, type)]
        models = [arg for arg in inner if issubclass(arg, BaseModel)]
        if models and not (isinstance(current, type) and issubclass(current, BaseModel)):
            current = models[0]
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []
