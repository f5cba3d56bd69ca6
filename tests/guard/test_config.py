"""guard.json: what is accepted, and how the rest is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from muster.guard import config
from muster.guard.config import ConfigError
from muster.guard.group_settings import Child, Loading, Probe

DATA: dict[str, Any] = {
    "version": 1,
    "group": "kimi-k2",
    "recipe": "kimi_k2_instruct",
    "digest": "4b1d",
    "engine": "0.32.0",
    "unit": "muster-kimi-k2.service",
    "host": "h1",
    "head": {"host": "h0", "address": "10.0.0.1", "control_port": 8100},
    "members": [
        {"host": "h0", "address": "10.0.0.1", "node_rank": 0, "dp_ranks": [0, 1]},
        {"host": "h1", "address": "10.0.0.2", "node_rank": 1, "dp_ranks": [2, 3]},
    ],
    "endpoint": {"address": "127.0.0.1", "port": 8000},
    "served_model_name": "kimi-k2",
    "processes": [
        {"name": "ray", "env": {"A": "1"}, "wait": [{"tcp": ["10.0.0.1", 6379]}]},
        {"name": "vllm", "ready": {"command": ["true"], "interval": 2}},
    ],
}

LOADING: dict[str, Any] = {
    "record": "/var/lib/muster/weights/m/rev.loaders.json",
    "mapped": 10**12,
    "whole": 2 * 10**12,
    "room": 0,
    "names": ["instanttensor", "fastsafetensors"],
    "process": "vllm",
    "ranks": "2-1-2-0-1-0",
}


def changed(path: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(DATA)
    *way, last = path.split(".")
    place: Any = data
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    return data


def test_a_whole_file_is_read() -> None:
    read = config.parse(json.dumps(DATA))
    assert (read.is_head, read.this.node_rank, read.group.dp_ranks) == (False, 1, (0, 1, 2, 3))
    assert read.children == (
        Child("ray", {"A": "1"}, wait=(Probe(tcp=("10.0.0.1", 6379)),)),
        Child("vllm", ready=Probe(command=("true",), interval=2.0)),
    )
    assert (read.bind, read.runtime_directory, read.state_directory) == (
        "10.0.0.1",
        "/run/muster/kimi-k2",
        "/var/lib/muster/kimi-k2",
    )
    assert read.settings.silence_timeout == 15.0
    assert read.loading is None
    read = config.parse(json.dumps({**DATA, "loading": LOADING}))
    assert read.loading == Loading(**{**LOADING, "names": ("instanttensor", "fastsafetensors")})
    assert read.page_cache == ""
    assert config.parse(json.dumps({**DATA, "page_cache": {"directory": "/w"}})).page_cache == "/w"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("settings", {"stall_timout": 1}, "unknown key 'settings.stall_timout'; did you mean 'stall_timeout'?"),
        ("members.0.rank", 1, "unknown key 'members[].rank'; did you mean 'dp_ranks'?"),
        ("settings", {"poll_interval": -1}, "settings.poll_interval is -1, needed a number of seconds"),
        ("settings", {"silence_timeout": 3}, "settings.silence_timeout must be at least twice"),
        ("host", "h7", "host 'h7' is none of the members h0, h1"),
        ("head.host", "h7", "head 'h7' is none of the members h0, h1"),
        ("members.1.host", "h0", "members name a host twice"),
        ("processes", [], "processes is empty"),
        ("version", 2, "version is 2, this guard reads version 1"),
        ("digest", "", "digest is '', needed a non-empty string"),
        ("processes.1.ready", {"interval": 1}, "a probe needs exactly one of tcp and command"),
        ("kernel_log", "dmesg", "'dmesg' is no list of strings"),
        ("head", [], "head. is list, needed an object"),
        ("loading", {**LOADING, "named": []}, "unknown key 'loading.named'; did you mean 'names'?"),
        ("loading", {**LOADING, "record": "rev.loaders.json"}, "needed an absolute path that ends in .loaders.json"),
        ("loading", {**LOADING, "record": "/w/rev.json"}, "needed an absolute path that ends in .loaders.json"),
        ("loading", {**LOADING, "mapped": -1}, "loading.mapped is -1, needed a number of bytes from 0 to 2**53"),
        ("loading", {**LOADING, "whole": 1.5}, "loading.whole is 1.5, needed a number of bytes"),
        ("loading", {**LOADING, "room": True}, "loading.room is True, needed a number of bytes"),
        ("loading", {**LOADING, "names": ["a b"]}, "loading.names is ['a b'], needed at most 5 names"),
        ("loading", {**LOADING, "names": list("abcdef")}, "needed at most 5 names of vLLM's loaders"),
        ("loading", {**LOADING, "names": "vllm"}, "'vllm' is no list of strings"),
        ("loading", {**LOADING, "process": ""}, "process is '', needed a non-empty string"),
        ("loading", {"record": LOADING["record"]}, "no key 'names'"),
        ("page_cache", {"directory": "weights"}, "page_cache.directory is 'weights', needed an absolute path"),
        ("page_cache", {"files": ["/w"]}, "unknown key 'page_cache.files'"),
        ("page_cache", "/w", "page_cache. is str, needed an object"),
    ],
)
def test_what_cannot_be_acted_on_is_refused_by_name(path: str, value: Any, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        config.parse(json.dumps(changed(path, value)))
    assert reason in str(error.value)


@pytest.mark.parametrize("key", ["group", "digest", "unit", "host", "head", "members", "processes"])
def test_a_missing_key_is_named(key: str) -> None:
    data = {name: value for name, value in DATA.items() if name != key}
    with pytest.raises(ConfigError, match=f"no key '{key}'"):
        config.parse(json.dumps(data))


def test_what_the_model_answers_and_whether_a_canary_reaches_its_rank() -> None:
    assert config.parse(json.dumps(DATA)).pinned
    of_members = config.parse(json.dumps({**DATA, "endpoint_kind": "embeddings"}))
    assert (of_members.kind.path, of_members.pinned) == ("/v1/embeddings", False)
    alone = copy.deepcopy(DATA)
    for member in alone["members"]:
        member["dp_ranks"] = [0] if member["node_rank"] == 0 else []
    assert config.parse(json.dumps({**alone, "endpoint_kind": "embeddings"})).pinned
    with pytest.raises(ConfigError, match="endpoint_kind is 'songs', needed one of completions, embeddings"):
        config.parse(json.dumps({**DATA, "endpoint_kind": "songs"}))
