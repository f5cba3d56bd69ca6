"""What fields of answers are made of: texts, numbers, names and paths with their bounds. Pure.

Types are exact: "1" is no number.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Word = Annotated[str, Field(max_length=300)]
Line = Annotated[str, Field(max_length=300, pattern=r"\A[^\r\n]*\z")]
Text = Annotated[str, Field(max_length=100_000)]
Path = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=0)]
Age = Annotated[float, Field(ge=-1e9, le=1e9)]
Group = Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z")]
Unit = Annotated[str, Field(pattern=r"\A[A-Za-z0-9@._:\\-]{1,255}\z")]
Mode = Annotated[str, Field(pattern=r"\A[0-7]{1,6}\z")]
Machine = Annotated[str, Field(pattern=r"\A[a-z0-9_]{1,20}\z")]
Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{8,64}\z")]
Time = Annotated[str, Field(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\z")]


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


FROM_LIST = BeforeValidator(_tuple)
"""Lets a list stand for a tuple: JSON has none."""


class Model(BaseModel):
    """Exact types; fields that no model names are kept, as far as they are printable."""

    # A run uses few of all models: each is built when its first answer comes.
    model_config = ConfigDict(strict=True, extra="allow", defer_build=True)


class ChangeRecord(Model):
    """A change as a host knows it; empty where it knows of none."""

    id: Line = ""
    group: Line = ""
    command: Line = ""
    who: Line = ""
    origin: Line = ""
    since: Line = ""
    before: Line = ""
    after: Line = ""
    phase: Line = ""
    returned: Line = ""
    exchanging: Line = ""


class ChangeState(Model):
    """Of change_record.state."""

    locked: bool
    holder: ChangeRecord
    record: ChangeRecord
    installed: Line


class ReadRate(Model):
    """How fast a host reads its weights; bytes a second and seconds."""

    one: Annotated[int, Field(gt=0, le=10**13)]
    all: Annotated[int, Field(gt=0, le=10**13)]
    readers: Annotated[int, Field(gt=0, le=1000)]
    network: Annotated[str, Field(pattern=r"\A[a-z0-9]{0,12}\z")] = ""
    age: Annotated[int, Field(ge=0, le=10**10)]


class LoaderRate(Model):
    """Bytes a second of one loader, and of GPU memory that it takes meanwhile."""

    rate: Annotated[int, Field(gt=0, le=10**13)]
    peak: Annotated[int, Field(ge=0, le=10**13)]


class KeptLoaders(Model):
    """How fast each loader gets the weights onto a host's GPUs."""

    engine: Line
    ranks: Line
    age: Annotated[int, Field(ge=0, le=10**10)]
    loaders: Annotated[dict[Annotated[str, Field(pattern=r"\A[a-z][a-z_-]{0,39}\z")], LoaderRate], Field(max_length=8)]


class Anything(Model):
    """An object whose reader checks each value by itself, or reads none."""
