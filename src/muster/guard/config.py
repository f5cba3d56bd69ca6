"""guard.json -> Config. Checked by hand, since hosts have no pydantic; unknown keys are refused by name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .endpoint_kinds import COMPLETIONS, KINDS, EndpointKind
from .group_settings import Checks, Child, Group, KeptFor, KeptWeights, Loading, Member, Port, Probe, Settings

RECORD = ".loaders.json"
"""How the record of the loaders is named: as the directory of the weights' revision, and this."""
LOADERS = 5
"""Loaders that a plan may name: the times of more would not fit a report."""


class ConfigError(ValueError):
    """guard.json holds something the guard cannot act on."""


@dataclass(frozen=True)
class Endpoint:
    """One address of the API, and the DP ranks that answer there."""

    address: tuple[str, int]
    ranks: tuple[int, ...]
    own: bool = False
    """It answers for its own ranks alone, and counts them from 0."""

    def number(self, rank: int) -> int:
        """What this endpoint calls one of its DP ranks."""
        return self.ranks.index(rank) if self.own else rank


@dataclass(frozen=True)
class Config:
    """Everything the plan gives one guard: world-readable, without secrets."""

    group: Group
    host: str
    recipe: str
    unit: str
    head_address: str
    control_port: int
    bind: str
    endpoint: tuple[str, int] | None
    served_model_name: str
    children: tuple[Child, ...]
    settings: Settings = field(default_factory=Settings)
    checks: Checks = field(default_factory=Checks)
    endpoint_kind: str = COMPLETIONS
    """What the model answers, by its name in KINDS."""
    kernel_log: tuple[str, ...] = ()
    engine_titles: tuple[str, ...] = ("VLLM::",)
    """Prefixes of the engine's process titles: one of those gone is a failure, whatever its parent does."""
    stack_directory: str = ""
    """Where the engine's own watchdog writes the stacks of a process that stands still; empty where it has none."""
    runtime_directory: str = ""
    state_directory: str = ""
    kept_weights: KeptWeights | None = None
    """Of an engine that maps its weights: who keeps them."""
    kept_for: KeptFor | None = None
    """Of the daemons that keep weights: whose."""
    loading: Loading | None = None
    """Where a loader is chosen at each start: what that takes. What hosts measure is no part of it."""
    page_cache: str = ""
    """Directory of the weights that are kept in the page cache; empty where none are."""

    @property
    def is_head(self) -> bool:
        return self.host == self.group.head

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Every endpoint that the head asks; none where nothing serves."""
        if self.endpoint is None:
            return ()
        serving = [member for member in self.group.members if member.port]
        if not serving:
            return (Endpoint(self.endpoint, self.group.dp_ranks),)
        return tuple(
            Endpoint(
                self.endpoint if member.host == self.host else (member.address, member.port), member.dp_ranks, own=True
            )
            for member in serving
        )

    @property
    def kind(self) -> EndpointKind:
        """What the model answers."""
        return KINDS[self.endpoint_kind]

    @property
    def pinned(self) -> bool:
        """Whether a canary reaches the DP rank that it is for."""
        return self.kind.by_rank or all(len(endpoint.ranks) == 1 for endpoint in self.endpoints)

    @property
    def this(self) -> Member:
        return next(member for member in self.group.members if member.host == self.host)


KEYS = (
    *("version", "group", "recipe", "digest", "engine", "unit", "host", "head", "members", "endpoint"),
    *("served_model_name", "endpoint_kind", "processes", "settings", "checks", "kernel_log", "engine_titles"),
    *("stack_directory", "runtime_directory", "state_directory", "kept_weights", "kept_for", "loading", "page_cache"),
)


def load(path: str) -> Config:
    """Read guard.json. Raises OSError or ConfigError."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    return parse(text, path)


def parse(text: str, where: str = "guard.json") -> Config:
    """The typed form of guard.json's text. Raises ConfigError, which names the key and what was needed."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON ({error}); run the deploy again") from None
    try:
        return _config(data)
    except (KeyError, TypeError, ValueError) as error:
        what = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"{where}: {what}; run the deploy again with this muster's plan") from None


def _config(data: Mapping[str, Any]) -> Config:
    _only(data, KEYS, "")
    if data["version"] != 1:
        raise ValueError(f"version is {data['version']!r}, this guard reads version 1")
    head = data["head"]
    _only(head, ("host", "address", "control_port", "bind"), "head.")
    members = tuple(_member(item) for item in data["members"])
    group = Group(_str(data, "group"), _str(data, "digest"), _str(data, "engine"), _str(head, "host"), members)
    if len(set(group.hosts)) != len(group.hosts):
        raise ValueError("members name a host twice")
    for role, host in (("head", group.head), ("host", _str(data, "host"))):
        if host not in group.hosts:
            raise ValueError(f"{role} {host!r} is none of the members {', '.join(group.hosts)}")
    endpoint = data.get("endpoint")
    kind = str(data.get("endpoint_kind", COMPLETIONS))
    if kind not in KINDS:
        raise ValueError(f"endpoint_kind is {kind!r}, needed one of {', '.join(KINDS)}")
    config = Config(
        group=group,
        host=_str(data, "host"),
        recipe=str(data.get("recipe", "")),
        unit=_str(data, "unit"),
        head_address=_str(head, "address"),
        control_port=int(head["control_port"]),
        bind=str(head.get("bind") or head["address"]),
        endpoint=(_str(endpoint, "address"), int(endpoint["port"])) if endpoint else None,
        served_model_name=str(data.get("served_model_name", "")),
        children=tuple(_child(item) for item in data["processes"]),
        settings=_settings(data.get("settings", {})),
        checks=_checks(data.get("checks", {})),
        endpoint_kind=kind,
        kernel_log=_strings(data.get("kernel_log", ())),
        engine_titles=_strings(data.get("engine_titles", ("VLLM::",))),
        stack_directory=str(data.get("stack_directory", "")),
        runtime_directory=str(data.get("runtime_directory") or f"/run/muster/{group.name}"),
        state_directory=str(data.get("state_directory") or f"/var/lib/muster/{group.name}"),
        kept_weights=_kept_weights(data["kept_weights"]) if data.get("kept_weights") else None,
        kept_for=_kept_for(data["kept_for"]) if data.get("kept_for") else None,
        loading=_loading(data["loading"]) if data.get("loading") else None,
        page_cache=_page_cache(data["page_cache"]) if data.get("page_cache") else "",
    )
    if not config.children:
        raise ValueError("processes is empty; a guard needs at least one child")
    return config


def _member(item: Mapping[str, Any]) -> Member:
    _only(item, ("host", "address", "node_rank", "dp_ranks", "port"), "members[].")
    ranks = tuple(int(rank) for rank in item.get("dp_ranks", ()))
    return Member(_str(item, "host"), _str(item, "address"), int(item["node_rank"]), ranks, int(item.get("port", 0)))


def _child(item: Mapping[str, Any]) -> Child:
    _only(item, ("name", "env", "wait", "ready", "standby"), "processes[].")
    env = {str(key): str(value) for key, value in item.get("env", {}).items()}
    ready = item.get("ready")
    return Child(
        _str(item, "name"),
        env,
        tuple(_probe(probe) for probe in item.get("wait", ())),
        _probe(ready) if ready else None,
        _strings(item.get("standby", ())),
    )


def _kept_weights(item: Mapping[str, Any]) -> KeptWeights:
    _only(item, ("group", "unit", "health_port", "sockets"), "kept_weights.")
    return KeptWeights(_str(item, "group"), _str(item, "unit"), int(item["health_port"]), _str(item, "sockets"))


def _kept_for(item: Mapping[str, Any]) -> KeptFor:
    _only(item, ("group", "health_port", "state_directory", "sockets"), "kept_for.")
    names = [_str(item, name) for name in ("group", "state_directory", "sockets")]
    return KeptFor(names[0], int(item["health_port"]), *names[1:])


def _loading(item: Mapping[str, Any]) -> Loading:
    _only(item, [field.name for field in fields(Loading)], "loading.")
    record, names = _str(item, "record"), _strings(item["names"])
    if not record.startswith("/") or not record.endswith(RECORD):
        raise ValueError(f"loading.record is {record!r}, needed an absolute path that ends in {RECORD}")
    if len(names) > LOADERS or not all(re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name) for name in names):
        raise ValueError(f"loading.names is {list(names)!r}, needed at most {LOADERS} names of vLLM's loaders")
    sizes = {key: item[key] for key in ("mapped", "whole", "room")}
    for key, size in sizes.items():
        if type(size) is not int or not 0 <= size < 2**53:
            raise ValueError(f"loading.{key} is {size!r}, needed a number of bytes from 0 to 2**53")
    return Loading(record=record, names=names, process=_str(item, "process"), ranks=_str(item, "ranks"), **sizes)


def _page_cache(item: Mapping[str, Any]) -> str:
    _only(item, ("directory",), "page_cache.")
    directory = _str(item, "directory")
    if not directory.startswith("/"):
        raise ValueError(f"page_cache.directory is {directory!r}, needed an absolute path")
    return directory


def _probe(item: Mapping[str, Any]) -> Probe:
    _only(item, ("tcp", "command", "interval", "timeout"), "probe.")
    tcp = item.get("tcp")
    probe = Probe(
        tcp=(str(tcp[0]), int(tcp[1])) if tcp else None,
        command=_strings(item.get("command", ())),
        interval=float(item.get("interval", 1.0)),
        timeout=float(item.get("timeout", 20.0)),
    )
    if (probe.tcp is None) == (not probe.command):
        raise ValueError("a probe needs exactly one of tcp and command")
    return probe


def _settings(item: Mapping[str, Any]) -> Settings:
    kinds = {field.name: field.type for field in fields(Settings)}
    _only(item, kinds, "settings.")
    values: dict[str, Any] = {}
    for key, value in item.items():
        number = int(value) if kinds[key] == "int" else float(value)
        if not 0 <= number < 1e7:
            raise ValueError(f"settings.{key} is {value!r}, needed a number of seconds from 0 to 1e7")
        values[key] = number
    settings = Settings(**values)
    if settings.silence_timeout < 2 * settings.poll_interval:
        raise ValueError("settings.silence_timeout must be at least twice settings.poll_interval")
    return settings


def _checks(item: Mapping[str, Any]) -> Checks:
    _only(item, [field.name for field in fields(Checks)], "checks.")
    values: dict[str, Any] = {}
    if "gpus" in item:
        values["gpus"] = int(item["gpus"])
    for key in ("gpu_command", "apps_command", "paths", "devices"):
        if key in item:
            values[key] = _strings(item[key])
    if "beside" in item:
        values["beside"] = _str(item, "beside")
    if "ports" in item:
        values["ports"] = tuple(Port(_str(port, "address"), int(port["port"])) for port in item["ports"])
    if "disk" in item:
        values["disk"] = {str(path): float(need) for path, need in item["disk"].items()}
    return Checks(**values)


def _only(item: Any, known: Iterable[str], where: str) -> None:
    if not isinstance(item, Mapping):
        raise TypeError(f"{where or 'the file'} is {type(item).__name__}, needed an object")
    names = list(known)
    for key in item:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1)
            raise ValueError(f"unknown key '{where}{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))


def _str(item: Mapping[str, Any], key: str) -> str:
    value = item[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is {value!r}, needed a non-empty string")
    return value


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{value!r} is no list of strings")
    return tuple(value)
