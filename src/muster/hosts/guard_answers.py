"""What a host's guard may answer, as models: its status, its group's, and the bundles of failures it kept. Pure.

The guard on a host may be of another version: fields that no model names pass unread.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from muster.hosts.answer_fields import Age, ChangeState, Count, KeptLoaders, Model, ReadRate, Text, Time, Word


class GuardUnit(Model):
    active: Word
    sub: Word
    restarts: Count
    since: Word = ""


class GuardFailure(Model):
    host: Word
    reason: Text
    generation: Word = ""
    process: Word = ""
    lines: Text = ""
    age: Age | None = None
    digest: Word = ""


class GuardMember(Model):
    host: Word
    child: Word
    blocked: Text = ""
    refused: Text = ""
    lacks: Text = ""


class GuardEngine(Model):
    dp_rank: Annotated[int, Field(ge=0, le=100_000)]
    proof: Age | None = None
    tokens_per_s: Age = 0.0
    in_flight: Age = 0.0


class GuardGroup(Model):
    phase: Word
    ready: bool = False
    reason: Text = ""
    generation: Word
    loader: Word = ""
    digest: Word = ""
    restarts: Count | None = None
    members: list[GuardMember]
    engines: list[GuardEngine] = []
    failures: list[GuardFailure] = []
    held_by: Word = ""
    held_at: Annotated[float, Field(ge=0, le=1e12)] | None = None
    last_start: Annotated[float, Field(ge=0, le=1e9)] | None = None


class GuardOwn(Model):
    child: Word = ""
    blocked: Text = ""
    head_heard: Age | None = None
    head_phase: Word = ""
    head_reason: Text = ""


class GuardLoad(Model):
    """Seconds in which a child's processes loaded their weights, by its own words; the slowest one's."""

    read: Annotated[float, Field(ge=0, le=1e7)] | None = None
    model: Annotated[float, Field(ge=0, le=1e7)] | None = None


class GuardChild(Model):
    name: Word
    load: GuardLoad | None = None


class BundleProcess(Model):
    name: Word
    lines: Annotated[str, Field(max_length=4_000_000)]


class FirstHere(Model):
    reason: Text
    process: Word = ""


class Bundle(Model):
    """What a guard kept of one failure."""

    generation: Word
    wall: Time
    reason: Text = ""
    first_here: FirstHere | None = None
    processes: list[BundleProcess] = []
    stacks: dict[Word, Annotated[str, Field(max_length=4_000_000)]] = {}


class GuardAnswer(Model):
    """Of the guard's own command line: each command has some of these."""

    error: Text = ""
    pending: Text = ""
    answer: Text = ""
    member: GuardOwn | None = None
    children: list[GuardChild] = []
    group: GuardGroup | None = None
    detail: Text = ""
    link_problem: Text = ""
    bundles: list[Bundle] = []
    lines: list[Text] = []


class AskGuard(Model):
    unit: GuardUnit | None = None
    answer: GuardAnswer
    change: ChangeState | None = None
    weights: GuardAnswer | None = None
    rate: ReadRate | None = None
    loaders: KeptLoaders | None = None
