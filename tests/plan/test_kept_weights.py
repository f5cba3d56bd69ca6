"""Groups that keep their weights: who may, what each host gets for it, and what turns without them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from muster.errors import Refusal
from muster.plan.restart_decision import is_base
from muster.plan.types import HostPlan, Plan
from tests.sample_plans import plan

KEPT: dict[str, Any] = {"keep_weights": True, "strategy": "dp-ep", "offline": True, "model": "/srv/m"}
UNIT = "/etc/systemd/system/muster-kimi-k2-instruct-weights.service"
CONFIG = "/etc/muster/kimi-k2-instruct/weights.json"


def made(**settings: Any) -> Plan:
    return plan("kimi-k2-instruct", 2, "H200", **{**KEPT, **settings})


def loader(host: HostPlan) -> dict[str, Any]:
    argv = host.processes[-1].argv
    read: dict[str, Any] = json.loads(argv[argv.index("--model-loader-extra-config") + 1])
    return read


def test_each_host_has_daemons_beside_its_engine() -> None:
    kept = made()
    for host in kept.hosts.values():
        config = json.loads(host.files[CONFIG].text)
        unit = host.files[UNIT].text
        assert host.weights is not None
        assert list(host.weights.argv[:2]) == ["vllm", "preload"]
        assert config["group"] == "kimi-k2-instruct-weights"
        assert config["processes"] == [{"name": "weights", "env": dict(host.weights.env)}]
        sockets = loader(host)["socket_dir"]
        assert sockets == f"{config['runtime_directory']}/{config['digest'][:12]}" == config["kept_for"]["sockets"]
        assert len(f"{sockets}/vllm_weight_cache_{'0' * 32}_draft.sock") <= 107  # sun_path of unix(7)
        assert f"RuntimeDirectory={config['runtime_directory'].removeprefix('/run/')}\n" in unit
        assert loader(host)["fallback"] is False
        assert (host.units, host.beside) == (
            ("muster-kimi-k2-instruct.service",),
            ("muster-kimi-k2-instruct-weights.service",),
        )
        assert "RuntimeDirectoryMode=0700" in unit
        assert f"MUSTER_DIGEST={config['digest']}" in unit
        engine = json.loads(host.files["/etc/muster/kimi-k2-instruct/guard.json"].text)
        assert engine["kept_weights"]["sockets"] == loader(host)["socket_dir"]
        assert engine["checks"]["beside"] == config["group"]
        wants = "Wants=muster-kimi-k2-instruct-weights.service"
        assert wants in host.files["/etc/systemd/system/muster-kimi-k2-instruct.service"].text
        assert wants not in unit


def test_without_the_setting_nothing_of_it_is_planned() -> None:
    for host in made(keep_weights=False).hosts.values():
        assert (host.weights, host.beside) == (None, ())
        text = "".join(file.text for path, file in host.files.items() if "/guard/" not in path)
        assert "weights.service" not in text
        assert "ipc_cache" not in " ".join(host.processes[-1].argv)


@pytest.mark.parametrize(
    ("changes", "reload"),
    [
        ({"max_num_seqs": 8}, False),
        ({"gpu_memory_utilization": 0.8}, False),
        ({"max_model_len": 8192}, False),
        ({"stall_timeout": 60}, False),
        ({"model": "/srv/other"}, True),
        ({"extra_args": ["--dtype", "float16"]}, True),
        ({"extra_env": {"VLLM_USE_DEEP_GEMM": "0"}}, True),
        ({"vllm_version": "0.33.1"}, True),
    ],
)
def test_daemons_turn_where_what_they_hold_would_be_other(changes: dict[str, Any], reload: bool) -> None:
    before, after = made(), made(**changes)
    assert before.digest != after.digest
    for name, host in before.hosts.items():
        files = {path for path, file in host.files.items() if after.hosts[name].files.get(path) != file}
        assert {path for path in files if not is_base(path)}
        assert ({UNIT, CONFIG} <= files) == reload
        assert bool({UNIT, CONFIG} & files) == reload


def test_experts_get_the_plugin_for_their_routers() -> None:
    kept = made()
    plugins = "/etc/muster/kimi-k2-instruct/plugins"
    for host in kept.hosts.values():
        assert host.processes[-1].env["PYTHONPATH"] == plugins
        assert "def register" in host.files[f"{plugins}/muster_mapped_router.py"].text
        entry = host.files[f"{plugins}/muster_mapped_router-1.dist-info/entry_points.txt"].text
        assert entry == "[vllm.general_plugins]\nmuster_mapped_router = muster_mapped_router:register\n"
    assert any("ipc-cache-moe" in warning for warning in kept.warnings)


def test_ports_of_the_daemons_are_the_groups() -> None:
    kept = made(keep_weights_port=31000, monitor_networks=["10.9.0.0/16"])
    assert {31000, 31001, 31002, 31003} < set(kept.head.ports)
    rules = kept.head.files["/etc/muster/kimi-k2-instruct/firewall.nft"].text
    opened = next(line for line in rules.splitlines() if "dport" in line and "@monitors4" in line)
    assert "31000" in opened
    assert "31001" not in opened
    with pytest.raises(Refusal, match="are one port"):
        made(keep_weights_port=29598)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"supervisor": "systemd"}, "supervisor is systemd"),
        ({"vllm_version": "0.32.0"}, "vllm_version is 0.32.0"),
        ({"vllm_version": "0.34.0"}, "vllm_version is 0.34.0"),
        ({"strategy": "tp-pp", "executor": "ray"}, "executor is ray"),
        ({"extra_args": ["--enable-eplb"]}, "--enable-eplb is planned"),
        ({"extra_args": ["--enable-sleep-mode"]}, "--enable-sleep-mode is planned"),
        ({"extra_args": ["--load-format=ipc_cache"]}, "--load-format ipc_cache is planned"),
    ],
)
def test_what_cannot_keep_its_weights_is_refused(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(Refusal, match=f"keep_weights is set, and {found}"):
        made(**changes)


def test_four_bit_weights_are_refused_as_vllm_refuses_them() -> None:
    four: dict[str, Any] = {"keep_weights": True, "strategy": "tp", "offline": True, "model": "/srv/m"}
    with pytest.raises(Refusal, match=r"the weights have 4\.\d+ bits"):
        plan("kimi-k2-thinking", 1, "H200", **four)
    assert plan("kimi-k2-thinking", 1, "H200", **four, allow_known_fault=True).head.weights is not None


def test_the_memory_table_counts_weights_once_and_their_daemon() -> None:
    kept, own = made().memory, made(keep_weights=False).memory
    assert kept is not None
    assert own is not None
    assert kept.parts[:-1] == own.parts
    assert (kept.parts[-1].name, kept.used - own.used) == ("weights' daemon", 1 << 30)


def test_the_manifest_names_the_unit_beside() -> None:
    for host in made().hosts.values():
        manifest = json.loads(host.files["/etc/muster/kimi-k2-instruct/plan.json"].text)
        assert manifest["beside"] == ["muster-kimi-k2-instruct-weights.service"]
    assert "beside" not in made(keep_weights=False).head.files["/etc/muster/kimi-k2-instruct/plan.json"].text
