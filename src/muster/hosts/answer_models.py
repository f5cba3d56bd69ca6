"""What each host program may answer, as models: what is of another form is an error of that host. Pure.

Fields that the control machine reads are described; others pass unread: guards and manifests may be of another version.
`group_answers` has what a host says of its groups, `guard_answers` what its guard says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field

from muster.hosts.answer_fields import (
    FROM_LIST,
    Anything,
    ChangeState,
    Count,
    Digest,
    Group,
    KeptLoaders,
    Line,
    Machine,
    Model,
    Path,
    ReadRate,
    Text,
    Unit,
    Word,
)
from muster.hosts.group_answers import KeptList, KeptNow, KeptRead, Manifest, ProbeGroup, RestoreCheck
from muster.hosts.guard_answers import AskGuard

Json = Mapping[str, Any]


class Removable(Model):
    groups: dict[Group, Manifest]
    going: list[Group]
    paths: dict[Path, Count]
    kept: dict[Path, Annotated[tuple[Text, Count], FROM_LIST]]
    units: list[Unit]
    user: bool
    changes: dict[Group, ChangeState]


class RemoveMuster(Model):
    removed: list[Path]
    notes: list[Text]


class PruneReleases(Model):
    removed: dict[Word, Count]
    kept: dict[Word, Text]


class JournalLine(Model):
    at: Annotated[float, Field(ge=0, le=1e11)]
    text: Annotated[str, Field(max_length=2000)]
    fields: dict[Word, Word] = {}


class Journal(Model):
    """Of read_journal."""

    lines: list[JournalLine]
    cursor: Annotated[str, Field(pattern=r"\A[A-Za-z0-9=;_-]{0,300}\z")] = ""


class PlaceFiles(Model):
    changed: list[Path]
    notes: list[Text]


class PlaceServices(Model):
    changed: list[Path]
    units: list[Unit]


class ReachPorts(Model):
    unreached: dict[Word, Text]


class KeyRecord(Model):
    name: Word
    models: list[Line]
    rate: Count
    concurrent: Count
    expires: Count
    made: Count
    revoked: Count


class KeyUse(Model):
    requests: Count
    in_flight: Count
    bytes_in: Count
    bytes_out: Count


class EdgeKeys(Model):
    """Of edge_keys."""

    keys: dict[Digest, KeyRecord]
    current: bool
    running: bool
    notes: list[Text]
    used: dict[Word, KeyUse]
    models: list[Line]


class EdgeLoad(Model):
    """Of edge_load."""

    running: bool
    asked: dict[Line, Count]


class DrainServers(Model):
    """Of drain_servers, where it does not hold."""

    drained: list[Line]
    up: list[Line]
    alone: list[Line]


class MoveServers(Model):
    elsewhere: dict[Line, Line]


class DrainLine(Model):
    """One line of drain_servers while it holds."""

    running: bool = False
    alone: list[Line] = []
    in_flight: Count = 0
    down: list[Line] = []
    error: Text = ""


class AskParser(Model):
    refused: list[Annotated[tuple[list[Text], Text], FROM_LIST]]


class Resolve(Model):
    text: Annotated[str, Field(max_length=8_000_000)]
    sizes: dict[Path, Count] = {}


class RunUnits(Model):
    done: bool
    died: dict[Unit, list[Text]]
    pending: Text
    last: dict[Unit, Text]
    since: dict[Unit, Word]


class VerifyGroup(Model):
    problems: list[Text]
    ranks: list[Count]
    served: list[Word]


class InstallTool(Model):
    installed: bool
    machine: Machine


class RunUnprivileged(Model):
    """What the program inside answered; an all-reduce is the only one."""

    measure_allreduce: Anything = Anything()


class ReadRates(Model):
    """Of read_rate and kept_rate."""

    rate: ReadRate | None
    why: Text = ""


class KeptLoadersAnswer(Model):
    loaders: KeptLoaders | None


class LoaderRates(Model):
    loaders: KeptLoaders | None
    failed: dict[Word, Text]
    why: Text


class WeightsProbe(Model):
    complete: bool
    good: Count
    wrong: dict[Path, Text]
    bytes: Count
    free: Count
    link: Path
    revisions: dict[Path, Count]
    manifest: Word | None = None
    extra: list[Path] = []
    rate: ReadRate | None = None
    loaders: KeptLoaders | None = None


class WeightsMissing(Model):
    missing: dict[Path, Count]


class WeightsVerify(Model):
    wrong: dict[Path, Text]
    extra: list[Path]
    files: Count
    bytes: Count


class WeightsPrune(Model):
    removed: dict[Path, Count]
    kept: dict[Path, Text]


class ToolState(Model):
    running: bool
    status: int
    why: Word = ""
    lines: list[Text]
    result: Annotated[str, Field(max_length=32_000_000)] | None


class ToolUnit(Model):
    active: Word
    digest: Word | None


class ToolLog(Model):
    units: dict[Unit, ToolUnit]
    lines: list[Text]
    gpus: list[Word]
    driver: Word


_BY_PROGRAM: dict[str, type[BaseModel]] = {
    "probe_group": ProbeGroup,
    "ask_guard": AskGuard,
    "read_journal": Journal,
    "place_files": PlaceFiles,
    "place_services": PlaceServices,
    "ask_parser": AskParser,
    "edge_keys": EdgeKeys,
    "edge_load": EdgeLoad,
    "drain_servers": DrainServers,
    "move_servers": MoveServers,
    "reach_ports": ReachPorts,
    "resolve_engine": Resolve,
    "run_units": RunUnits,
    "verify_group": VerifyGroup,
    "install_tool": InstallTool,
    "run_unprivileged": RunUnprivileged,
    "removable": Removable,
    "remove_muster": RemoveMuster,
    "prune_releases": PruneReleases,
    "read_rate": ReadRates,
    "kept_rate": ReadRates,
    "loader_rates": LoaderRates,
    # Their readers take each value by itself and call what they cannot read unreadable.
    "probe_gpus": Anything,
    "probe_machine": Anything,
    "probe_engine": Anything,
    "probe_firewall": Anything,
    "measure_pair": Anything,
    "meet_peers": Anything,
    "measure_allreduce": Anything,
    "kept_loaders": KeptLoadersAnswer,
}
_BY_COMMAND: dict[tuple[str, str], type[BaseModel]] = {
    ("restore_plan", "check"): RestoreCheck,
    ("restore_plan", "stage"): PlaceFiles,
    ("restore_plan", "commit"): PlaceFiles,
    ("kept_plans", "keep"): KeptNow,
    ("kept_plans", "renew"): KeptNow,
    ("kept_plans", "list"): KeptList,
    ("kept_plans", "read"): KeptRead,
    ("weights_on_disk", "probe"): WeightsProbe,
    ("weights_on_disk", "missing"): WeightsMissing,
    ("weights_on_disk", "verify"): WeightsVerify,
    ("weights_on_disk", "link"): Anything,
    ("weights_on_disk", "prune"): WeightsPrune,
    ("run_tool", "start"): Anything,
    ("run_tool", "poll"): ToolState,
    ("run_tool", "end"): Anything,
    ("run_tool", "log"): ToolLog,
}


def model_of(program: str, request: Json) -> type[BaseModel]:
    """Return the model of what a program answers to a request."""
    return _BY_PROGRAM.get(program) or _BY_COMMAND.get((program, str(request.get("do")))) or Anything
