"""`vllm preload` from the `vllm serve` that maps its weights: the same model on the same ranks, loaded the same way.

Whatever may shape the weights is passed on, and is in the daemons' key: a flag that is not known here costs a reload
when it changes, and never serves weights of another shape. Read from vLLM 0.33.0: the flags that `preload` does not
take in `entrypoints/common/cli_args.py`, the key in `model_executor/model_loader/weight_cache/protocol.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


SERVE_ONLY = _names("""
    headless api-server-count config grpc lora-modules chat-template chat-template-content-format
    trust-request-chat-template trust-request-mm-kwargs default-chat-template-kwargs reasoning-effort-map response-role
    return-tokens-as-token-ids enable-auto-tool-choice exclude-tools-when-tool-choice-none tool-call-parser
    tool-parser-plugin tool-strict-level tool-server max-log-len enable-prompt-tokens-details enable-per-request-metrics
    enable-server-load-tracking enable-force-include-usage sse-keep-alive-interval enable-tokenizer-info-endpoint
    enable-log-outputs enable-log-deltas cohere-is-reasoning-model cohere-format anthropic-disabled-thinking-effort
    log-error-stack tokens-only enable-scale-out fingerprint-mode fingerprint-value host port grpc-port
    data-parallel-supervisor-port dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s
    dp-supervisor-probe-failure-threshold uds uvicorn-log-level disable-uvicorn-access-log
    disable-access-log-for-endpoints allow-credentials allowed-origins allowed-methods allowed-headers api-key
    ssl-keyfile ssl-certfile ssl-ca-certs enable-ssl-refresh ssl-cert-reqs ssl-ciphers root-path middleware
    enable-request-id-headers disable-fastapi-docs h11-max-incomplete-event-size h11-max-header-count
    enable-offline-docs enable-flash-late-interaction enable-log-requests
""")
"""Flags of `vllm serve` that `vllm preload` has no word for: who is answered, and how."""
FREE = _names("""
    async-scheduling disable-log-stats enable-chunked-prefill enable-prefix-caching
    gpu-memory-utilization kv-cache-memory-bytes max-model-len max-num-batched-tokens max-num-seqs reasoning-parser
    scheduling-policy served-model-name shutdown-timeout stream-interval watchdog-config
""")
"""Flags of the engine that leave its weights as they are: another value needs no reload."""
OWN = frozenset(("data-parallel-hybrid-lb", "data-parallel-rpc-port", "distributed-executor-backend", "master-port"))
"""How an engine's ranks find each other; the daemons meet by themselves."""
LOADER = frozenset(("load-format", "model-loader-extra-config"))
"""Who reads the files: the daemons, in the engine's place."""
STATE_SECONDS = 60
"""An engine that finds no daemon fails after so long: its guard has seen them serve before it started."""

Flag = tuple[str, tuple[str, ...]]
"""Name without dashes and `no-`, and the words it is written with."""


def preload(serve: Sequence[str]) -> list[str]:
    """Return the `vllm preload` command of one host, but for where its daemons listen.

    The parser of vLLM 0.33.0 takes it of each of the 1,690 commands that benchmarks/parsed.py knows (2026-11-27).

    Args:
        serve: the host's `vllm serve` command, with the user's words.
    """
    left_out = SERVE_ONLY | FREE | OWN
    kept = [word for name, words in _flags(serve[3:]) if name not in left_out for word in words]
    return ["vllm", "preload", "--model", serve[2], *kept]


def listening(sockets: str, master_port: int, health_port: int) -> list[str]:
    """Return where the daemons of one host listen: sockets for engines, a rendezvous for each other, health for guards.

    Args:
        sockets: directory, of the engine's user alone.
        master_port: TCP port on the head; the next one is a draft model's.
        health_port: TCP port on loopback.
    """
    argv = ["--weight-cache-socket-dir", sockets, "--weight-cache-master-port", str(master_port)]
    argv += ["--weight-cache-draft-master-port", str(master_port + 1)]
    return [*argv, "--weight-cache-health-host", "127.0.0.1", "--weight-cache-health-port", str(health_port)]


def mapped(serve: Sequence[str], sockets: str) -> tuple[str, ...]:
    """Return the `vllm serve` command of an engine that maps the daemons' weights or fails: it loads no second copy.

    Args:
        serve: the command that loads them itself.
        sockets: directory of the daemons.
    """
    kept = [word for name, words in _flags(serve[3:]) if name not in LOADER for word in words]
    where = {"socket_dir": sockets, "fallback": False, "state_timeout_s": STATE_SECONDS}
    loader = ["--load-format", "ipc_cache", "--model-loader-extra-config", json.dumps(where, separators=(",", ":"))]
    return (*serve[:3], *kept, *loader)


def _flags(words: Sequence[str]) -> Iterator[Flag]:
    """Yield each flag with its values; short forms stand by themselves."""
    name, held = "", list[str]()
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            if held:
                yield name, tuple(held)
            name, held = _name(word), [word]
        else:
            held.append(word)
    if held:
        yield name, tuple(held)


def _name(word: str) -> str:
    name = word.lstrip("-").partition("=")[0].replace("_", "-").partition(".")[0]
    known = SERVE_ONLY | FREE | OWN | LOADER
    for begins, positive in (("no-", ""), ("disable-", "enable-"), ("enable-", "disable-")):
        if name not in known and name.startswith(begins) and positive + name[len(begins) :] in known:
            return positive + name[len(begins) :]
    beginnings = [each for each in LOADER if word.startswith("--") and len(name) >= 3 and each.startswith(name)]
    return beginnings[0] if len(beginnings) == 1 else name
