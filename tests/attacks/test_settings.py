"""Hostile settings and inventories: always a refusal in words or a valid plan, and never a directive of their own."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.plan.types import Plan
from muster.spec import inventory, recipe, safe_text
from muster.spec.host import host_of
from muster.spec.host_data import settings_of
from muster.spec.settings import NAMES, Settings
from tests import sample_plans

DEFAULTS = Settings().flat()
BREAKS = ["\n", "\r", "\x00", "\x85", "\u2028", "\x1b]52;c;aGk=\x07", "\u202e", "\ud800", "\\\n", "\x9b31m"]
DIRECTIVES = ["ExecStartPre=+/bin/sh", "[Service]", "User=root", "LoadCredential=x:/etc/shadow"]
PATHS = ["/etc", "/", "//", "../../etc/x", "/a/../../etc", "/var/lib/muster/../../x", "~root", "/proc/self/environ"]

hostile_text = st.one_of(
    st.text(max_size=80),
    st.builds("{}{}{}".format, st.text(max_size=8), st.sampled_from(BREAKS), st.sampled_from(DIRECTIVES)),
    st.sampled_from(
        [*PATHS, "%n", "${HOME}", "$(id)", "`id`", "{{ 7*7 }}", "{% raw %}", "'", '"', "a" * 5000, "-x", "--"]
    ),
)
hostile = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=True),
        hostile_text,
        st.sampled_from([-1, 0, 1, 65535, 65536, 2**63, 10**400, float("inf")]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(hostile_text, st.integers()), inner, max_size=4),
    ),
    max_leaves=8,
)
shaped = {
    "extra_env": st.dictionaries(st.one_of(hostile_text, st.from_regex(r"[A-Z]{1,8}", fullmatch=True)), hostile_text),
    "extra_args": st.lists(hostile_text, max_size=4),
    "client_networks": st.lists(st.one_of(hostile_text, st.ip_addresses().map(str)), max_size=4),
    "model_shape": st.dictionaries(hostile_text, st.floats(), max_size=3),
}


def planned(**data: Any) -> Plan | None:
    """Return the plan that settings make, or None where they are refused; whatever else is raised is a finding."""
    try:
        settings = settings_of(data)
        return build_plan(recipe.load("kimi-k2-instruct"), sample_plans.hosts(2, "H200"), settings)
    except Refusal as refusal:
        readable(refusal)
        return None


def readable(refusal: Refusal) -> None:
    """Hold a refusal to text that no terminal takes for a command, and that does not fill the screen."""
    assert all(line.isprintable() for line in str(refusal).split("\n"))
    assert len(str(refusal)) < 5000


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@hypothesis.settings(suppress_health_check=list(hypothesis.HealthCheck))
def test_any_value_of_any_setting_is_refused_or_planned(name: str, data: st.DataObject) -> None:
    value = data.draw(st.one_of(hostile, shaped.get(name, hostile_text)))
    plan = planned(**{name: value})
    if plan is not None:
        same_directives(plan)


def same_directives(plan: Plan) -> None:
    """Hold the units of a plan to the directives of our templates: a value adds none and breaks no line."""
    for host in plan.hosts.values():
        for path, file in host.files.items():
            file.text.encode()
            if path.endswith(".service") and "muster-firewall@" not in path:  # that one holds no value at all
                joined = re.sub(r"\\\n\s*", " ", file.text)
                lines = [line for line in joined.split("\n") if line and not line.startswith("#")]
                assert all(re.match(r"\[[A-Za-z-]+\]$|[A-Za-z]+=", line) for line in lines)
                assert all(line.isprintable() for line in lines)
                assert sum(line.startswith("User=") for line in lines) == 1
                assert not any(line.startswith(("ExecStartPre=+", "ExecStart=+")) for line in lines)


BASES: list[dict[str, Any]] = [{}, {"strategy": "tp-pp"}, {"strategy": "tp-pp", "executor": "mp"}]
PAIRS = [
    ("port", "control_port"),
    ("port", "rpc_port"),
    ("port", "master_port"),
    ("port", "ray_port"),
    ("port", "weights_port"),
    ("control_port", "weights_port"),
    ("control_port", "preflight_port"),
    ("rpc_port", "control_port"),
    ("ray_port", "control_port"),
    ("master_port", "control_port"),
]


def bound(base: dict[str, Any]) -> set[str]:
    """Return the settings of the ports that hosts of a plan bind, while it runs or before."""
    plan = sample_plans.plan("kimi-k2-instruct", 2, "H200", **base)
    names = {opening.name for host in plan.hosts.values() for opening in host.firewall.openings}
    return names | {"weights_port", "preflight_port"}


@pytest.mark.parametrize(
    ("base", "one", "other"),
    [(base, one, other) for base in BASES for one, other in PAIRS if {one, other} <= bound(base)],
)
def test_no_two_listeners_of_a_host_share_a_port(base: dict[str, Any], one: str, other: str) -> None:
    with pytest.raises(Refusal, match="are one port"):
        sample_plans.plan("kimi-k2-instruct", 2, "H200", **base, **{one: DEFAULTS[other]})


@pytest.mark.parametrize("port", [6380, 6385, 10002, 15000, 19999])
def test_a_port_is_none_of_ray_s_own(port: int) -> None:
    with pytest.raises(Refusal, match="are one port"):
        sample_plans.plan("kimi-k2-instruct", 2, "H800", port=port)
    assert planned(port=port) is not None, "without Ray it is free"


def test_a_port_that_only_root_binds_is_refused() -> None:
    with pytest.raises(Refusal, match="from 1024 on"):
        sample_plans.plan("kimi-k2-instruct", 2, "H200", port=443)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"VLLM_PORT": "8000"}, "VLLM_PORT=8000"),
        ({"VLLM_PORT": "29500"}, "counts up"),
        ({"MY_SIDE_PORT": "29600"}, "control_port is 29600"),
        ({"VLLM_NIXL_SIDE_CHANNEL_PORT": "29550"}, "rpc_port is 29550"),
        ({"RAY_AUTH_MODE": "disabled"}, "asks for its token"),
        ({"VLLM_HOST_IP": "10.0.0.1"}, "fabric_address"),
        ({"MUSTER_DIGEST": "x"}, "the plan and the guard"),
        ({"VLLM_DP_RANK": "0"}, "the plan and the guard"),
        ({"A=B": "x"}, "extra_env"),
        ({"A B": "x"}, "extra_env"),
        ({"": "x"}, "extra_env"),
        ({"LD": "a\nUser=root"}, "U\\+000A"),
    ],
)
def test_a_variable_that_could_only_fail_is_refused_before_anything_stops(env: dict[str, str], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        build_plan(recipe.load("kimi-k2-instruct"), sample_plans.hosts(2, "H200"), settings_of({"extra_env": env}))


def test_a_variable_with_a_free_port_passes() -> None:
    assert planned(extra_env={"VLLM_PORT": "30000", "SOME_PORT": "31000", "IMPORT": "8000"}) is not None


@pytest.mark.parametrize(
    "data",
    [
        {"ray_version": "2.51.9"},
        {"ray_version": "2.9.0"},
        {"engine_requirements": ["ray==2.40.0"]},
        {"engine_requirements": ["ray[default] == 2.40.0"]},
        {"engine_requirements": ["ray>=2.40"]},
        {"overrides": ["ray==2.40.0"]},
        {"engine_requirements": ["ray"]},
    ],
)
def test_a_ray_that_serves_strangers_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match=r"2\.52\.0 or newer|one exact Ray"):
        sample_plans.plan("kimi-k2-instruct", 2, "H800", **data)


def test_without_ray_its_version_does_not_matter() -> None:
    assert sample_plans.plan("kimi-k2-instruct", 2, "H800", executor="mp", ray_version="2.9.0")
    assert sample_plans.plan("kimi-k2-instruct", 2, "H800", ray_version="2.52.0")


@pytest.mark.parametrize("key", ["fabric_address", "fabric_interface", "gpu", "gpus"])
@given(value=hostile)
@hypothesis.settings(suppress_health_check=list(hypothesis.HealthCheck))
def test_any_value_of_a_host_is_refused_or_planned(key: str, value: object) -> None:
    data = {"gpu": "H200", "gpus": 8, "fabric_address": "198.51.100.1", "fabric_interface": "eth1", key: value}
    try:
        spec = host_of("h0", data, "inventory")
        plan = build_plan(recipe.load("kimi-k2-thinking"), [dataclasses.replace(spec)], Settings())
    except Refusal:
        return
    same_directives(plan)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255"])
def test_a_host_of_several_has_an_address_that_others_reach(address: str) -> None:
    def plan() -> Plan:
        addresses = {"h0": address, "h1": "10.0.0.2"}
        data = {name: {"gpu": "H200", "gpus": 8, "fabric_address": each} for name, each in addresses.items()}
        hosts = [host_of(name, values, "inventory") for name, values in data.items()]
        inventory.require_reachable(hosts, "inventory")
        return build_plan(recipe.load("kimi-k2-instruct"), hosts, Settings())

    with pytest.raises(Refusal, match="address"):
        plan()


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%\nUser=root", "10.0.0.1\n", "0x7f.1", " 10.0.0.1"])
def test_an_address_is_one(address: str) -> None:
    for check in (safe_text.address, safe_text.network):
        with pytest.raises(ValueError, match="an IP"):
            check(address)


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/etc/muster", "/usr/bin/x", "/var/lib", "/var/lib/muster", "/home", "/proc/1"]
)
@pytest.mark.parametrize("name", ["hf_home", "root", "weights_root"])
def test_a_directory_of_the_system_is_nobody_s_to_give_away(name: str, path: str) -> None:
    with pytest.raises(Refusal, match=name):
        settings_of({name: path})
