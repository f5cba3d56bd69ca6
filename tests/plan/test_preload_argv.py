"""`vllm preload` gets what shapes the weights, and the engine that maps them what never loads a second copy."""

from __future__ import annotations

import json

import pytest

from muster.plan import preload_argv

SERVE = (
    *("vllm", "serve", "/srv/m", "--headless", "--data-parallel-start-rank", "8", "--port", "8000"),
    *("--tensor-parallel-size", "2", "--data-parallel-rpc-port", "29550", "--enable-expert-parallel"),
    *("--max-num-seqs=64", "--no-enable-prefix-caching", "--enable-auto-tool-choice", "--tool-call-parser", "kimi_k2"),
    *("--watchdog-config", '{"timeout":60}', "--kv-cache-dtype", "fp8", "-q", "fp8", "--max_model_len", "4096"),
    *("--load-form", "runai_streamer", "--model-loader-extra-config", '{"concurrency":8}'),
    *("--middleware", "m.M", "--hf-overrides.rope_theta", "-1", "--trust-remote-code"),
)


def test_the_daemons_load_what_the_engine_would() -> None:
    assert preload_argv.preload(SERVE) == [
        *("vllm", "preload", "--model", "/srv/m", "--data-parallel-start-rank", "8", "--tensor-parallel-size", "2"),
        *("--enable-expert-parallel", "--kv-cache-dtype", "fp8", "-q", "fp8", "--load-form", "runai_streamer"),
        *("--model-loader-extra-config", '{"concurrency":8}', "--hf-overrides.rope_theta", "-1", "--trust-remote-code"),
    ]


def test_an_engine_maps_or_fails() -> None:
    argv = preload_argv.mapped(SERVE, "/run/muster-weights/g/key")
    kept = [word for word in SERVE if word not in ("--load-form", "runai_streamer", '{"concurrency":8}')]
    kept.remove("--model-loader-extra-config")
    assert list(argv[: len(kept)]) == kept
    *flags, where = argv[len(kept) :]
    assert flags == ["--load-format", "ipc_cache", "--model-loader-extra-config"]
    assert json.loads(where) == {"socket_dir": "/run/muster-weights/g/key", "fallback": False, "state_timeout_s": 60}


@pytest.mark.parametrize(
    "word",
    [
        "--max-num-seqs 8",
        "--disable-log-requests",
        "--no-async-scheduling",
        "--gpu-memory-utilization 0.5",
        "--served-model-name x",
    ],
)
def test_what_leaves_the_weights_alone_is_no_word_of_the_daemons(word: str) -> None:
    assert preload_argv.preload((*SERVE, *word.split())) == preload_argv.preload(SERVE)


@pytest.mark.parametrize(
    "word", ["--dtype float16", "--moe-backend triton", "--revision abc", "--of-a-later-version 1"]
)
def test_what_may_shape_them_is(word: str) -> None:
    assert preload_argv.preload((*SERVE, *word.split())) == [*preload_argv.preload(SERVE), *word.split()]


def test_no_flag_is_left_out_twice() -> None:
    sets = (preload_argv.SERVE_ONLY, preload_argv.FREE, preload_argv.OWN, preload_argv.LOADER)
    assert len(frozenset().union(*sets)) == sum(map(len, sets))
