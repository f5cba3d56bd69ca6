"""What a host may say of the groups on it, as models: files, units, manifests, kept plans, what a start needs. Pure.

Manifests and kept plans may be of another version: fields that no model names pass unread.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from muster.hosts.answer_fields import (
    Age,
    ChangeState,
    Count,
    Digest,
    Group,
    Machine,
    Mode,
    Model,
    Path,
    Text,
    Time,
    Unit,
    Word,
)


class FileState(Model):
    kind: Word
    sha256: Word | None = None
    mode: Mode | None = None
    owner: Word | None = None
    group: Word | None = None
    text: Text | None = None


class UnitState(Model):
    active: Word
    sub: Word = ""
    load: Word = ""
    result: Word = ""
    main_pid: Count = 0
    restarts: Count = 0
    enabled: bool = False
    invocation: Word = ""
    reload: bool = False
    digest: Word | None = None


class NoUnits(Model):
    error: Text


class ReleaseState(Model):
    exists: bool
    complete: bool
    runs: bool


class StepCheck(Model):
    host: Word
    kind: Word
    target: Text | list[Text]
    text: Text


class ManifestStep(Model):
    text: Word
    units: list[Unit]
    checks: list[StepCheck]


class Manifest(Model):
    """A group's plan.json; each version of muster has written more into it."""

    recipe: Word = ""
    digest: Word = ""
    label: Word = ""
    endpoint: Word = ""
    host: Word = ""
    hosts: Count = 0
    role: Word = ""
    node_rank: Count = 0
    units: list[Unit] = []
    beside: list[Unit] = []
    ports: list[int] = []
    gpus: list[Word] = []
    steps: list[ManifestStep] = []
    ready_timeout: Annotated[int, Field(ge=1, le=10**6)] = 3600
    drain_seconds: Annotated[int, Field(ge=0, le=10**6)] = 0
    heals: bool = False


class KeptRelease(Model):
    id: Word
    path: Path


class KeptSeconds(Model):
    stop: Age | None = None
    start: Age | None = None


class KeptHeader(Model):
    """A verified plan that a host keeps, without its files."""

    digest: Digest
    number: Count
    version: Count = 1
    label: Word = ""
    recipe: Word = ""
    release: KeptRelease
    verified: Time
    by: Word = ""
    hosts: Annotated[list[Word], Field(min_length=1, max_length=10_000)]
    drain_seconds: Annotated[int, Field(ge=0, le=10**7)] = 0
    seconds: KeptSeconds = KeptSeconds()


Headers = Annotated[list[KeptHeader], Field(max_length=64)]


class Startable(Model):
    lacks: list[Text]
    plans: dict[Path, Word]


class ProbeGroup(Model):
    python: Word
    machine: Machine
    files: dict[Path, FileState]
    secrets: dict[Path, FileState]
    stale: list[Path]
    units: dict[Unit, UnitState] | NoUnits
    groups: dict[Group, Manifest]
    startable: Startable
    changes: dict[Group, ChangeState]
    release: ReleaseState
    uv: bool
    accepted: list[bool]
    ready: bool | None
    members: dict[Word, Word] = {}
    held: Word
    run_free: Count | None = None
    kept: Headers = []


class KeptFile(Model):
    text: Annotated[str, Field(max_length=8_000_000)]
    mode: Mode
    owner: Word
    group: Word


class KeptProcess(Model):
    unit: Unit
    argv: list[Text]


class KeptVerification(Model):
    """What verify asks of a host that runs the plan."""

    processes: list[KeptProcess]


class RestoreCheck(Model):
    """Of restore_plan: what a host lacks for a kept plan, and what the plan says of itself there."""

    lacks: list[Text]
    notes: list[Text]
    units: list[Unit]
    manifest: Manifest
    verify: KeptVerification


class KeptPlan(KeptHeader):
    units: list[Unit]
    settings: dict[Word, Any] = {}
    secrets: dict[Path, Word] = {}
    verify: KeptVerification
    files: dict[Path, KeptFile]


class KeptList(Model):
    plans: Headers


class KeptRead(Model):
    plan: KeptPlan


class KeptNow(Model):
    kept: list[Digest]
    removed: list[Digest]
