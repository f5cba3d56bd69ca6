"""A catalogue's YAML -> a recipe: layers kept, what is not carried over said or refused, hostile text in its place."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from muster.cli import main
from muster.commands.git_files import Fetched
from muster.commands.import_recipe import imported
from muster.errors import Refusal
from muster.plan.make import build_plan
from muster.spec import recipe
from muster.spec.settings import Settings
from muster.spec.vllm_catalogue import Importer
from tests.commands.repositories import Repository
from tests.sample_plans import engine_flags, hosts

RAW: dict[str, Any] = {
    "meta": {"title": "Any 1T", "tasks": ["text"]},
    "model": {
        "model_id": "org/Any-1T",
        "min_vllm_version": "0.25.0",
        "context_length": "262144",
        "base_args": ["--trust-remote-code", "--max_num_seqs", "64", "--max-model-len auto"],
        "base_env": {"VLLM_SWITCH": "on", "VLLM_ENGINE_READY_TIMEOUT_S": "3600"},
    },
    "features": {
        "tool_calling": {"description": "Tools.", "args": ["--enable-auto-tool-choice", "--tool-call-parser", "any"]},
        "text_only": {"args": ["--language-model-only"]},
        "mtp": {"args": ["--speculative-config.num_speculative_tokens", "2"], "strategies": ["single_node_tp"]},
        "draft": {"args": ["--speculative-config", '{"model":"org/draft"}']},
        "template": {"args": ["--chat-template", "examples/tool.jinja"]},
    },
    "opt_in_features": ["text_only"],
    "variants": {
        "default": {"precision": "bf16", "vram_minimum_gb": "150"},
        "fp8": {"model_id": "org/Any-1T-FP8", "vram_minimum_gb": "75", "extra_args": ["--kv-cache-dtype=fp8"]},
        "nvfp4": {"precision": "nvfp4", "vram_minimum_gb": "40"},
        "amd": {"vram_minimum_gb": "40", "supported_hardware": ["mi355x"]},
    },
    "compatible_strategies": ["single_node_tp", "single_node_dep", "multi_node_tep", "multi_node_dep", "pd_cluster"],
    "strategy_overrides": {
        "multi_node_tep": {"extra_args": ["--max-num-seqs", "8"]},
        "multi_node_dep": {"hardware_overrides": {"h100": {"extra_args": ["--max-num-batched-tokens", "4096"]}}},
    },
    "hardware_overrides": {"hopper": {"extra_args": ["--max-num-batched-tokens", "8192"], "extra_env": {"A_B": "1"}}},
}

OVERSUBSCRIBED = Settings(allow_oversubscription=True, allow_unpinned_code=True)


def converted(variant: str = "default", **change: Any) -> tuple[recipe.Recipe, list[str]]:
    importer = Importer({**copy.deepcopy(RAW), **change}, "any.yaml")
    made = importer.recipe({"path": "any.yaml", "sha256": "0" * 64}, variant)
    return recipe.parse(made, where="any.yaml"), importer.differences


def flags(strategy: str, gpu: str = "H200", count: int = 1, variant: str = "default") -> dict[str, str]:
    settings = Settings(strategy=strategy, variant=variant, allow_unpinned_code=True)
    plan = build_plan(converted()[0], hosts(count, gpu), settings)
    return engine_flags(plan)


def test_layers_come_to_the_catalogues_command() -> None:
    words = flags("multi_node_tep", count=2)
    expected = {
        "tensor-parallel-size": "16",
        "enable-expert-parallel": "",
        "max-num-seqs": "8",
        "max-model-len": "auto",
        "max-num-batched-tokens": "8192",
        "tool-call-parser": "any",
        "enable-auto-tool-choice": "",
        "trust-remote-code": "",
        "nnodes": "2",
    }
    assert {name: words.get(name) for name in expected} == expected
    assert not {"language-model-only", "speculative-config", "speculative-config.num-speculative-tokens"} & set(words)


def test_a_features_own_strategies_and_dotted_flags_are_kept() -> None:
    settings = Settings(strategy="single_node_tp", allow_unpinned_code=True)
    argv = build_plan(converted()[0], hosts(1, "H200"), settings).head.processes[-1].argv
    assert argv[argv.index("--speculative-config.num_speculative_tokens") + 1] == "2"


@pytest.mark.parametrize(
    ("gpu", "batch"), [("H100", "4096"), ("H800", "4096"), ("H200", "8192"), ("H20-3e", "8192"), ("H20", "8192")]
)
def test_products_without_a_word_take_those_of_their_like(gpu: str, batch: str) -> None:
    assert flags("multi_node_dep", gpu, 2)["max-num-batched-tokens"] == batch
    assert flags("multi_node_tep", gpu, 2)["max-num-batched-tokens"] == "8192"


def test_variants_are_kept_with_their_weights_flags_and_size() -> None:
    made, differences = converted()
    assert list(made.variants) == ["default", "fp8"]
    assert (made.of_variant(None).model, made.of_variant("fp8").model) == ("org/Any-1T", "org/Any-1T-FP8")
    assert flags("single_node_tp")["tensor-parallel-size"] == "8"
    assert "tensor-parallel-size" not in flags("single_node_tp", variant="fp8")
    assert flags("single_node_tp", variant="fp8")["kv-cache-dtype"] == "fp8"
    assert any("variant amd left out" in line for line in differences)
    assert any("variant nvfp4 left out: NVFP4" in line for line in differences)


def test_the_variant_asked_for_is_the_recipes_own() -> None:
    made, _ = converted("fp8")
    assert (made.variant, made.of_variant(None).model) == ("fp8", "org/Any-1T-FP8")


@pytest.mark.parametrize(("model_id", "endpoint"), [("org/Any-embed", "embeddings"), ("org/reRanker", "reranking")])
def test_what_a_model_answers_follows_from_its_task_and_name(model_id: str, endpoint: str) -> None:
    made, notes = converted(meta={"tasks": ["embedding"]}, model={**RAW["model"], "model_id": model_id})
    assert made.endpoint == endpoint
    assert any(f"endpoint: {endpoint}" in note for note in notes)
    assert converted()[0].endpoint == "completions"


def test_packages_that_it_installs_are_resolved_with_the_engine() -> None:
    commands = ['uv pip install -U "vllm[audio]"', "uv pip install b>=2", "uv pip install c --index-url elsewhere"]
    optional = {"command": "uv pip install d", "optional": "true"}
    made, differences = converted(dependencies=[*({"command": each} for each in commands), optional])
    assert made.packages == ("vllm[audio]", "b>=2")
    assert "not carried out: uv pip install c --index-url elsewhere" in differences
    plan = build_plan(made, hosts(1, "H200"), Settings(strategy="single_node_tp", allow_unpinned_code=True))
    assert plan.release.requirements == ("vllm==0.33.0", "vllm[audio]", "b>=2")
    assert "installed with the engine, as the recipe asks: vllm[audio], b>=2" in plan.warnings


@pytest.mark.parametrize("gpu", ["H800", "H20", "H20-3e", "H100", "H200"])
def test_where_the_catalogue_has_no_word_on_a_gpu_the_plan_says_so(gpu: str) -> None:
    silent = gpu not in ("H100", "H200")
    plan = build_plan(converted()[0], hosts(2, gpu), Settings(strategy="multi_node_dep", allow_unpinned_code=True))
    assert [gpu in note for note in plan.warnings if "no word on" in note] == [True] * silent
    by_hand = recipe.load("kimi-k2-instruct")
    assert not any("no word on" in note for note in build_plan(by_hand, hosts(2, gpu), OVERSUBSCRIBED).warnings)


def test_over_hosts_data_parallel_is_hybrid() -> None:
    assert "data-parallel-hybrid-lb" in flags("multi_node_dep", count=2)


def test_a_strategys_served_name_is_its_own() -> None:
    override = {"single_node_tp": {"extra_args": ["--served-model-name", "one-host"]}}
    hopper = {"hopper": {"extra_args": ["--served-model-name", "by-gpu"]}}
    made, differences = converted(strategy_overrides=override, hardware_overrides=hopper)
    names = {name: strategy.served_model_name for name, strategy in made.strategies.items()}
    assert names == {**dict.fromkeys(names), "single_node_tp": "one-host"}
    assert "--served-model-name by-gpu left out: a strategy says it" in differences


def test_what_is_done_otherwise_is_said() -> None:
    _, differences = converted()
    for words in ("pd_cluster", "draft is off", "template left out", "VLLM_ENGINE_READY_TIMEOUT_S left out"):
        assert any(words in line for line in differences), words


def test_files_that_its_commands_name_come_along_where_they_are_given(tmp_path: Path) -> None:
    directory = tmp_path / "models" / "org"
    directory.mkdir(parents=True)
    (directory / "Any.yaml").write_text(yaml.safe_dump(RAW))
    source = tmp_path / "vllm"
    (source / "examples").mkdir(parents=True)
    (source / "examples" / "tool.jinja").write_text("{{ messages }}")
    (source / "examples" / "link.jinja").symlink_to("/etc/hostname")
    words = ["org/Any", "--catalogue", str(tmp_path), "--output", str(tmp_path / "any.yaml")]
    done = CliRunner().invoke(main, ["import", *words, "--files", str(source)])
    assert done.exit_code == 0, done.output
    assert "examples/tool.jinja comes with the recipe" in done.output
    made = recipe.load(str(tmp_path / "any.yaml"))
    assert {name: (file.text, file.source) for name, file in made.files.items()} == {
        "tool.jinja": ("{{ messages }}", "examples/tool.jinja")
    }
    settings = Settings(strategy="single_node_tp", features={"template": True}, allow_unpinned_code=True)
    planned = engine_flags(build_plan(made, hosts(1, "H200"), settings))
    assert planned["chat-template"].startswith("/etc/muster/any-1t/files/")
    without = converted()
    assert "template" not in without[0].features
    assert any("a file of its own" in note for note in without[1])


@pytest.mark.parametrize(
    ("variant", "change", "says"),
    [
        ("nvfp4", {}, "NVFP4 weights"),
        ("amd", {}, "variant amd: for mi355x: not for Hopper"),
        ("defalt", {}, "did you mean 'default'"),
        ("default", {"omni": {"x": "y"}}, "needs vllm-omni"),
        ("default", {"model": {**RAW["model"], "model_id": "openai/whisper-large-v3"}}, "only transcribes"),
        ("default", {"dependencies": [{"command": "uv pip install git+https://x"}]}, "a package from git"),
        ("default", {"model": {**RAW["model"], "base_args": ["--chat-template", "a.jinja"]}}, "a file of its own"),
        ("default", {"model": {**RAW["model"], "base_args": ["--a-plugin", "a.py"]}}, "a file of its own"),
        ("default", {"model": {**RAW["model"], "base_args": ["-O3"]}}, "does not read"),
        ("default", {"model": {**RAW["model"], "base_args": ["--x", "$HEAD_IP"]}}, "does not read"),
        ("default", {"model": {**RAW["model"], "min_vllm_version": "nightly"}}, "min_vllm_version nightly"),
        ("default", {"model": {**RAW["model"], "nightly_required": "true", "min_vllm_version": "0.40"}}, "a nightly"),
        ("default", {"model": {**RAW["model"], "docker_image": "vllm/vllm-openai:own"}}, "an image of its own"),
        ("default", {"model": {**RAW["model"], "model_id": "a b\n"}}, "model"),
        ("default", {"meta": {"title": "x\nExecStart=/bin/sh"}}, "title"),
        ("default", {"model": {**RAW["model"], "base_env": {"A\nB": "1"}}}, "env"),
    ],
)
def test_what_cannot_be_carried_over_is_refused_by_name(variant: str, change: dict[str, Any], says: str) -> None:
    with pytest.raises(Refusal, match=says):
        converted(variant, **change)


TEXTS = st.recursive(
    st.text(max_size=8), lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside)
)


@given(st.sampled_from(sorted(RAW)), TEXTS)
def test_whatever_a_key_holds_a_recipe_comes_out_or_a_refusal(key: str, value: object) -> None:
    try:
        converted(**{key: value})
    except Refusal:
        return


@pytest.mark.parametrize(
    "change",
    [
        {"model": {**RAW["model"], "nightly_required": "true"}},
        {"model": {**RAW["model"], "docker_image": "vllm/vllm-openai:minimax-m3"}},
        {"dependencies": [{"command": "uv pip install git+https://github.com/huggingface/transformers.git"}]},
    ],
)
def test_what_a_release_has_since_takes_a_newer_floor_and_is_said(change: dict[str, Any]) -> None:
    made, differences = converted(**change)
    assert made.of_variant(None).min_vllm == "0.32.0"
    assert any("vLLM 0.32.0 or newer in the place of" in line for line in differences)


def test_a_strategy_is_for_the_products_that_the_catalogue_has_it_for() -> None:
    made, _ = converted(strategy_hardware={"multi_node_tp_dp": {"h200": "supported"}})
    assert made.strategies["multi_node_tp_dp"].gpus == ("H200", "H20-3e")
    with pytest.raises(Refusal, match="does not take H100"):
        build_plan(made, hosts(2, "H100"), Settings(strategy="multi_node_tp_dp", allow_unpinned_code=True))


def written(directory: Path) -> Path:
    (directory / "models" / "org").mkdir(parents=True)
    (directory / "models" / "org" / "Any-1T.yaml").write_text(yaml.safe_dump(RAW))
    return directory


def test_the_command_writes_one_file_with_its_source(tmp_path: Path) -> None:
    output = tmp_path / "mine.yaml"
    words = ["import", "org/Any-1T", "--catalogue", str(written(tmp_path)), "--output", str(output)]
    ran = CliRunner().invoke(main, words)
    assert ran.exit_code == 0, ran.output
    assert "pd_cluster left out" in ran.output
    silence = "The catalogue has no word on H800 (taken as H100), H20-3e (taken as H200), H20 (taken as any Hopper)"
    assert silence in ran.output
    assert f"# {silence}." in output.read_text().splitlines()
    made = recipe.load(str(output))
    assert made.source is not None
    assert (made.source.path, made.source.variant, len(made.source.sha256)) == ("models/org/Any-1T.yaml", "default", 64)
    again = CliRunner().invoke(main, words)
    assert again.exit_code != 0


@pytest.mark.parametrize("model", ["org/Any-2T", "../../etc/passwd", "org/../org/Any-1T"])
def test_only_a_model_of_the_catalogue_is_read(tmp_path: Path, model: str) -> None:
    with pytest.raises(Refusal, match="unknown model"):
        imported(Fetched(written(tmp_path)), model, "default")


def test_a_check_says_what_moved_upstream_since(tmp_path: Path) -> None:
    directory, mine = written(tmp_path), tmp_path / "mine.yaml"
    assert run("org/Any-1T", "--catalogue", str(directory), "--output", str(mine)).exit_code == 0
    check = (str(mine), "--check", "--catalogue", str(directory))
    unchanged = run(*check)
    assert (unchanged.exit_code, "mine.yaml: unchanged" in unchanged.output) == (0, True)
    upstream = directory / "models" / "org" / "Any-1T.yaml"
    upstream.write_text("# a comment\n" + upstream.read_text())
    same = run(*check)
    assert (same.exit_code, "the recipe would be the same" in same.output) == (1, True)
    base = ["--max-num-seqs", "128"]
    upstream.write_text(yaml.safe_dump({**RAW, "model": {**RAW["model"], "base_args": base}}))
    moved = run(*check)
    assert moved.exit_code == 1
    assert "flags.max-num-seqs: 64, now 128" in moved.output
    assert "flags.trust-remote-code: True, now not there" in moved.output
    upstream.unlink()
    assert "models/org/Any-1T.yaml is gone" in run(*check).output


def test_a_check_without_a_name_takes_every_imported_recipe(tmp_path: Path) -> None:
    checked = run("--check", "--catalogue", str(written(tmp_path)))
    assert checked.exit_code == 1
    assert "glm-5-2: models/zai-org/GLM-5.2.yaml is gone" in checked.output
    assert "kimi-k2-instruct" not in checked.output
    assert run("--catalogue", str(tmp_path)).exit_code == 2


def test_a_catalogue_in_git_is_fetched_and_written_into_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    upstream, engine, mine = Repository(tmp_path / "c.git"), Repository(tmp_path / "e.git"), str(tmp_path / "mine.yaml")
    commit = upstream.commit({"models/org/Any-1T.yaml": yaml.safe_dump(RAW)})
    tag = engine.commit({"examples/tool.jinja": "{{ messages }}"})
    engine.git("tag", "v0.33.0")
    places = ("--catalogue", f"git {upstream.url}@{commit}", "--files", f"git {engine.url}@v0.33.0")
    done = run("org/Any-1T", *places, "--output", mine)
    assert done.exit_code == 0, done.output
    made = recipe.load(mine)
    assert made.source is not None
    assert (made.source.repository, made.source.commit) == (upstream.url, commit)
    assert made.files["tool.jinja"].source == f"examples/tool.jinja of {engine.url} at {tag}"

    assert (checked := run("--check", mine)).exit_code == 0, checked.output
    assert f"{upstream.url} is at {commit}" in checked.output
    base = {**RAW, "model": {**RAW["model"], "base_args": ["--max-num-seqs", "128"]}}
    newer = upstream.commit({"models/org/Any-1T.yaml": yaml.safe_dump(base)})
    moved = run("--check", mine)
    assert moved.exit_code == 1
    assert f"{upstream.url} is at {newer}" in moved.output
    assert "flags.max-num-seqs: 64, now 128" in moved.output


def test_without_a_repository_a_check_needs_a_catalogue(tmp_path: Path) -> None:
    mine = str(tmp_path / "mine.yaml")
    assert run("org/Any-1T", "--catalogue", str(written(tmp_path)), "--output", mine).exit_code == 0
    for words, says in ((("--check", mine), "was imported from a directory"), (("org/Any-1T",), "no catalogue")):
        done = run(*words)
        assert done.exit_code == 2
        assert says in done.output
    assert "'git URL@COMMIT'" in run("org/Any-1T", "--catalogue", str(tmp_path / "none")).output


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["import", *words])
