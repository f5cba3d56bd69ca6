"""Plans: the seeds' commands, properties over many sizes, and every refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.spec import recipe
from muster.spec.settings import Settings
from tests.sample_plans import hosts, plain, plan


def vllm_argv(plan_, host: str) -> list[str]:
    (process,) = [p for p in plan_.hosts[host].processes if p.name == "vllm"]
    return list(process.argv)


def value(argv: list[str], flag: str) -> str | None:
    return argv[argv.index(flag) + 1] if flag in argv else None


def test_tp_pp_on_h800_is_the_seeds_command_without_what_vllm_dropped() -> None:
    argv = vllm_argv(plan("kimi-k2-instruct", 2, "H800", profile="published"), "h800-0")
    assert argv[:3] == ["vllm", "serve", "moonshotai/Kimi-K2-Instruct"]
    seed = {
        "--tokenizer-mode": "auto",
        "--tensor-parallel-size": "8",
        "--pipeline-parallel-size": "2",
        "--dtype": "bfloat16",
        "--quantization": "fp8",
        "--max-model-len": "2048",
        "--max-num-seqs": "1",
        "--max-num-batched-tokens": "1024",
        "--kv-cache-dtype": "fp8",
        "--decode-context-parallel-size": "8",
    }
    assert {flag: value(argv, flag) for flag in seed} == seed
    assert {"--trust-remote-code", "--enable-chunked-prefill"} <= set(argv)
    assert "--disable-log-requests" not in argv
    assert "--enable-auto-tool-choice" not in argv


def test_disable_log_requests_is_kept_where_vllm_still_takes_it() -> None:
    argv = vllm_argv(
        plan(
            "kimi-k2-instruct",
            2,
            "H800",
            profile="published",
            vllm_version="0.12.0",
            decode_context_parallel_size=1,
        ),
        "h800-0",
    )
    assert "--disable-log-requests" in argv


def test_ray_starts_on_both_hosts_before_vllm_on_the_head() -> None:
    p = plan("kimi-k2-instruct", 2, "H800")
    assert p.order == (("h800-0:ray",), ("h800-1:ray",), ("h800-0:vllm",))
    assert [process.name for process in p.hosts["h800-1"].processes] == ["ray"]
    head, worker = (p.hosts[name].processes[0].argv for name in p.hosts)
    assert "--head" in head
    assert value(list(worker), "--address") == "198.51.100.1:6379"
    assert value(list(worker), "--num-gpus") == "8"


def test_mp_executor_gives_followers_their_rank_and_needs_no_ray() -> None:
    p = plan("kimi-k2-instruct", 2, "H800", executor="mp")
    head, follower = vllm_argv(p, "h800-0"), vllm_argv(p, "h800-1")
    assert value(head, "--nnodes") == value(follower, "--nnodes") == "2"
    assert (value(head, "--node-rank"), value(follower, "--node-rank")) == ("0", "1")
    assert "--headless" in follower
    assert "--headless" not in head
    assert not [r for r in p.release.requirements if r.startswith("ray")]


def test_dp_ep_on_h200_is_the_seeds_pair_of_commands() -> None:
    p = plan("kimi-k2-instruct", 2, "H200")
    head, headless = vllm_argv(p, "h200-0"), vllm_argv(p, "h200-1")
    assert p.label == "DP16+EP"
    assert p.served_model_name == "kimi-k2"
    for argv in (head, headless):
        assert value(argv, "--data-parallel-size") == "16"
        assert value(argv, "--data-parallel-size-local") == "8"
        assert value(argv, "--data-parallel-address") == "198.51.100.1"
        assert value(argv, "--max-num-batched-tokens") == "8192"
        assert value(argv, "--max-num-seqs") == "256"
        assert value(argv, "--gpu-memory-utilization") == "0.85"
        assert value(argv, "--tool-call-parser") == "kimi_k2"
        assert {"--enable-expert-parallel", "--trust-remote-code", "--enable-auto-tool-choice"} <= set(argv)
    # Even 0 would turn the head into hybrid load balancing, which refuses headless peers.
    assert "--data-parallel-start-rank" not in head
    assert value(headless, "--data-parallel-start-rank") == "8"
    assert p.order == (("h200-0:vllm", "h200-1:vllm"),)  # the guards start all ranks of a generation at once
    assert plain("kimi-k2-instruct", 2, "H200").order == (("h200-0:vllm",), ("h200-1:vllm",))


def test_thinking_strategies_are_the_seeds_commands() -> None:
    low = vllm_argv(plan("kimi-k2-thinking", 1, "H200"), "h200-0")
    high = vllm_argv(plan("kimi-k2-thinking", 1, "H200", strategy="tp-dcp"), "h200-0")
    assert value(low, "--tensor-parallel-size") == value(high, "--tensor-parallel-size") == "8"
    assert value(low, "--reasoning-parser") == value(high, "--reasoning-parser") == "kimi_k2"
    assert value(high, "--decode-context-parallel-size") == "8"
    assert "--decode-context-parallel-size" not in low


@pytest.mark.parametrize(
    ("name", "count", "gpu", "gpus", "settings", "label"),
    [
        ("kimi-k2-instruct", 4, "H800", 8, {"strategy": "dp-ep"}, "DP32+EP"),
        ("kimi-k2-instruct", 4, "H800", 8, {}, "TP8+PP4"),
        ("kimi-k2-thinking", 1, "H200", 4, {"allow_oversubscription": True}, "TP4"),
        ("kimi-k2-thinking", 1, "H20", 8, {"strategy": "tp-dcp"}, "TP8+DCP8"),
        ("kimi-k2-instruct", 2, "H200", 8, {"expert_parallel": False}, "DP16"),
    ],
)
def test_other_sizes_come_from_the_topology(name, count, gpu, gpus, settings, label) -> None:
    assert plan(name, count, gpu, gpus, **settings).label == label


def test_defaults_fit_their_hardware() -> None:
    assert plan("kimi-k2-instruct", 2, "H800").strategy == "tp-pp"
    assert plan("kimi-k2-instruct", 2, "H200").strategy == "dp-ep"
    h20 = plan("kimi-k2-thinking", 1, "H20")
    assert value(vllm_argv(h20, "h20-0"), "--max-model-len") == "98304"
    assert h20.memory.fits
    assert any("max_model_len" in warning for warning in h20.warnings)


def test_features_can_be_turned_off_and_on() -> None:
    off = vllm_argv(plan("kimi-k2-thinking", 1, "H200", tool_calling=False, reasoning=False), "h200-0")
    assert not {"--enable-auto-tool-choice", "--tool-call-parser", "--reasoning-parser"} & set(off)
    on = vllm_argv(plan("kimi-k2-instruct", 2, "H800", tool_calling=True), "h800-0")
    assert value(on, "--tool-call-parser") == "kimi_k2"


def test_settings_beat_the_recipe_and_extra_args_beat_both() -> None:
    argv = vllm_argv(plan("kimi-k2-instruct", 2, "H200", max_model_len=65536, gpu_memory_utilization=0.95), "h200-0")
    assert value(argv, "--max-model-len") == "65536"
    assert value(argv, "--gpu-memory-utilization") == "0.95"
    argv = vllm_argv(plan("kimi-k2-instruct", 2, "H200", extra_args=["--max_num_seqs=7", "--enforce-eager"]), "h200-0")
    assert argv[-2:] == ["--max_num_seqs=7", "--enforce-eager"]
    assert "--max-num-seqs" not in argv


def test_a_revision_pins_model_code_and_tokenizer() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    argv = vllm_argv(plan("kimi-k2-thinking", 1, "H200", revision=commit), "h200-0")
    assert {value(argv, f"--{what}revision") for what in ("", "code-", "tokenizer-")} == {commit}
    assert not any("pinned" in w for w in plan("kimi-k2-thinking", 1, "H200", revision=commit).warnings)


def test_units_reach_only_peers_and_clients_once_nothing_is_fetched() -> None:
    def unit(**settings: object) -> str:
        p = plan("kimi-k2-thinking", 1, "H200", **settings)
        return p.hosts["h200-0"].files[f"/etc/systemd/system/{p.hosts['h200-0'].units[0]}"].text

    assert "IPAddressDeny=any" in unit(offline=True)
    assert "IPAddressDeny=any" not in unit()


def test_a_dead_name_server_holds_up_no_engine_that_resolves_nothing() -> None:
    for settings, options in (({"offline": True}, "timeout:1 attempts:1"), ({}, None)):
        (process,) = plan("kimi-k2-thinking", 1, "H200", **settings).hosts["h200-0"].processes
        assert process.env.get("RES_OPTIONS") == options


SHAPE = recipe.load("kimi-k2-instruct").shape.model_dump()
REFUSED = [
    ({"strategy": "dp-pe"}, 2, "H200", "did you mean 'dp-ep'"),
    ({"strategy": "tp-pp"}, 1, "H800", "at least 2 hosts"),
    ({"strategy": "dp-ep"}, 2, "H800", "does not fit 2 x 8 NVIDIA H800"),
    ({"strategy": "tp-pp", "decode_context_parallel_size": 3}, 2, "H800", "a divisor of 8"),
    ({"strategy": "dp-ep", "decode_context_parallel_size": 8}, 2, "H200", "DCP divides TP's GPUs"),
    ({"vllm_version": "0.11.2"}, 2, "H200", "vLLM 0.12.0 or newer"),
    ({"vllm_version": "0.23.0", "profile": "published"}, 2, "H800", "vLLM 0.26 or newer"),
    ({"extra_args": ["--data-parallel-size", "3"]}, 2, "H200", "extra_args holds --data-parallel-size"),
    ({"extra_args": ["-tp", "3"]}, 2, "H200", "extra_args holds -tp"),
    ({"extra_env": {"HF_TOKEN": "x"}}, 2, "H200", "extra_env holds HF_TOKEN"),
    ({"drop_args": ["--quantisation"]}, 2, "H800", "did you mean 'quantization'"),
    ({"reasoning": True}, 2, "H200", "unknown feature 'reasoning'"),
    ({"model_shape": {"hiden_size": 1}}, 2, "H200", "did you mean 'hidden_size'"),
    ({"model_shape": {"hidden_size": 1}}, 2, "H200", "model_shape: num_hidden_layers is missing"),
    ({"model_shape": dict(SHAPE, hidden_size=1.5)}, 2, "H200", "model_shape: hidden_size is 1.5"),
    (
        {"vllm_version": "0.23.0", "strategy": "tp-pp", "extra_args": ["--kv-cache-dtype=fp8"]}
        | {"decode_context_parallel_size": 8},
        2,
        "H800",
        "vLLM 0.26 or newer",
    ),
    ({"extra_args": ["--max-model-len", "lots"]}, 2, "H200", "--max-model-len is 'lots'"),
    ({"engine_requirements": ["ray @ https://x.example/ray.whl"]}, 2, "H800", "needed: one exact Ray"),
    ({"overrides": ["Ray[default]>=2.60"]}, 2, "H800", "needed: one exact Ray"),
    ({"ray_version": "2.5rc2"}, 2, "H800", "the group would run Ray 2.5rc2"),
    ({"index_url": "https://me:pw@index.example/simple"}, 2, "H200", "holds an address with a user or password"),
]


@pytest.mark.parametrize(("settings", "count", "gpu", "says"), REFUSED)
def test_what_cannot_work_is_refused_in_words(settings, count, gpu, says) -> None:
    with pytest.raises(Refusal) as caught:
        plan("kimi-k2-instruct", count, gpu, **settings)
    assert says in str(caught.value)
    assert "pw" not in str(caught.value).split()


@pytest.mark.parametrize("ray", ["ray==2.60.0", "ray[default] == 2.60.0rc1 ; sys_platform == 'linux'", "ray-llm==1.0"])
def test_one_exact_ray_with_tokens_passes(ray: str) -> None:
    plan("kimi-k2-instruct", 2, "H800", engine_requirements=[ray])


def test_a_feature_of_a_recipe_sets_nothing_that_the_plan_decides() -> None:
    instruct = recipe.load("kimi-k2-instruct")
    feature = instruct.features["tool_calling"].model_copy(update={"flags": {"port": 80}})
    changed = instruct.model_copy(update={"features": {**instruct.features, "tool_calling": feature}})
    with pytest.raises(Refusal, match="recipe kimi-k2-instruct holds --port"):
        build_plan(changed, hosts(2), Settings(tool_calling=True))


def test_a_refusal_for_memory_shows_the_table_and_can_be_overridden() -> None:
    with pytest.raises(Refusal, match=r"routed experts +59.08 GiB"):
        plan("kimi-k2-instruct", 2, "H800", strategy="dp-ep")
    p = plan("kimi-k2-instruct", 2, "H800", strategy="dp-ep", allow_oversubscription=True)
    assert any("allow_oversubscription" in warning for warning in p.warnings)


def test_six_gpus_do_not_divide_64_heads() -> None:
    with pytest.raises(Refusal, match="64 attention heads"):
        plan("kimi-k2-instruct", 2, "H200", 6, strategy="tp-pp")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gpus": 7}, "h800-1: 7; the others have 8"),
        ({"gpu": "H200"}, "differ in GPU product"),
        ({"gpu": "H900"}, "did you mean 'H800'"),
        ({"name": "h800-0"}, "host h800-0 stands 2 times"),
        ({"address": "198.51.100.1"}, "fabric address 198.51.100.1 stands 2 times"),
        ({"address": "fabric"}, "is no IP address"),
        ({"gpus": 0}, "at least 1"),
    ],
)
def test_unequal_or_repeated_hosts_are_refused_by_name(change, says) -> None:
    three = hosts(3)
    three[1] = replace(three[1], **change)
    with pytest.raises(Refusal, match=says):
        build_plan(recipe.load("kimi-k2-instruct"), three, Settings())


STRATEGY = st.sampled_from(["tp-pp", "dp-ep"])
sizes = st.tuples(st.integers(2, 9), st.sampled_from([1, 2, 4, 8]))


@given(STRATEGY, sizes, st.sampled_from(["ray", "mp"]))
def test_every_gpu_is_in_exactly_one_rank_and_ranks_are_a_permutation(strategy, size, executor) -> None:
    count, gpus = size
    p = plan("kimi-k2-instruct", count, "H200", gpus, strategy=strategy, executor=executor, allow_oversubscription=True)
    assert sorted(host.node_rank for host in p.hosts.values()) == list(range(count))
    if strategy == "dp-ep":
        ranks = [rank for host in p.hosts.values() for rank in host.dp_ranks]
        assert sorted(ranks) == list(range(count * gpus))
        assert all(len(host.dp_ranks) == gpus for host in p.hosts.values())
    else:
        argv = vllm_argv(p, "h200-0")
        world = int(value(argv, "--tensor-parallel-size") or 1) * int(value(argv, "--pipeline-parallel-size") or 1)
        assert world == count * gpus
        if executor == "ray":
            assert sum(int(value(list(h.processes[0].argv), "--num-gpus")) for h in p.hosts.values()) == world


@given(STRATEGY, sizes)
def test_flags_are_equal_on_all_ranks_but_for_rank_and_headless(strategy, size) -> None:
    count, gpus = size
    p = plan("kimi-k2-instruct", count, "H200", gpus, strategy=strategy, executor="mp", allow_oversubscription=True)

    def common(argv: list[str]) -> list[str]:
        own = {"--node-rank", "--data-parallel-start-rank"}
        kept = [w for i, w in enumerate(argv) if w not in own and (i == 0 or argv[i - 1] not in own)]
        return [w for w in kept if w != "--headless"]

    assert len({tuple(common(vllm_argv(p, name))) for name in p.hosts}) == 1
    assert sum("--headless" in vllm_argv(p, name) for name in p.hosts) == count - 1


@given(STRATEGY, sizes)
def test_adding_a_host_renumbers_nobody_before_it(strategy, size) -> None:
    count, gpus = size
    small, large = (
        plan("kimi-k2-instruct", n, "H200", gpus, strategy=strategy, allow_oversubscription=True)
        for n in (count, count + 1)
    )
    for name, host in small.hosts.items():
        assert large.hosts[name].node_rank == host.node_rank
        assert large.hosts[name].dp_ranks == host.dp_ranks
        assert large.hosts[name].role == host.role


@given(STRATEGY, sizes)
def test_a_plan_is_deterministic_and_its_digest_stands_in_every_unit(strategy, size) -> None:
    count, gpus = size
    one, two = (
        plan("kimi-k2-instruct", count, "H200", gpus, strategy=strategy, allow_oversubscription=True) for _ in "ab"
    )
    assert one == two
    for host in one.hosts.values():
        for unit in host.units:
            assert f"Digest={one.digest}" in host.files[f"/etc/systemd/system/{unit}"].text


@given(
    st.sampled_from([("max_num_seqs", 8), ("extra_args", ["--enforce-eager"]), ("port", 8001), ("ready_timeout", 9)])
)
def test_a_changed_setting_changes_the_digest(change) -> None:
    base = plan("kimi-k2-instruct", 2, "H200")
    assert plan("kimi-k2-instruct", 2, "H200", **dict([change])).digest != base.digest


@pytest.mark.parametrize(("version", "flags"), [("0.20.2", 1), ("0.12.0", 0)])
def test_a_stop_drains_where_the_engine_can(version: str, flags: int) -> None:
    found = plan("kimi-k2-instruct", 2, "H200", vllm_version=version)
    for host in found.hosts.values():
        assert host.processes[-1].argv.count("--shutdown-timeout") == flags
    said = "--shutdown-timeout left out: vLLM 0.12.0 does not have it yet; a plain unit that is stopped drops"
    assert any(line.startswith(said) for line in found.warnings) == (flags == 0)


def test_the_engines_watchdog_dumps_before_the_guard_ends_a_stall_where_the_engine_has_one() -> None:
    found = plan("kimi-k2-instruct", 2, "H200", stall_timeout=90)
    for host in found.hosts.values():
        watchdog = json.loads(value(list(host.processes[-1].argv), "--watchdog-config") or "")
        assert watchdog["timeout"] + watchdog["check_interval"] < 90
        config = json.loads(host.files[f"/etc/muster/{found.group}/guard.json"].text)
        assert config["stack_directory"] == watchdog["dump_dir"]
    older = plan("kimi-k2-instruct", 2, "H200", vllm_version="0.32.0")
    plain = plan("kimi-k2-instruct", 2, "H200", supervisor="systemd")
    own = plan("kimi-k2-instruct", 2, "H200", extra_args=["--watchdog-config.timeout", "30"])
    for p in (older, plain, own):
        for host in p.hosts.values():
            assert "dump_dir" not in str(host.processes)
            config = host.files.get(f"/etc/muster/{p.group}/guard.json")
            assert config is None or "stack_directory" not in config.text
    assert any(line.startswith("--watchdog-config left out: vLLM 0.32.0") for line in older.warnings)


def test_a_key_puts_its_middleware_before_every_path_of_the_api(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("VLLM_API_KEY=sesame\n")
    p = plan("kimi-k2-instruct", 2, "H200", api_key_file=str(key), extra_env={"PYTHONPATH": "/opt/mine"})
    for host in p.hosts.values():
        (process,) = host.processes
        module = value(list(process.argv), "--middleware").removesuffix(".RequireApiKey")
        directory, _, users = process.env["PYTHONPATH"].partition(":")
        assert users == "/opt/mine"
        assert "class RequireApiKey" in host.files[f"{directory}/{module}.py"].text
        # Nothing else lies there: whatever did would come before the engine's own modules.
        assert [path for path in host.files if path.startswith(f"{directory}/")] == [f"{directory}/{module}.py"]
    assert "sesame" not in str(p)
    keyless = plan("kimi-k2-instruct", 2, "H200")
    assert "--middleware" not in keyless.head.processes[0].argv
    assert "PYTHONPATH" not in keyless.head.processes[0].env
