"""Run by the Python of an installed vLLM, without a GPU and without weights: the engine's own cache specification.

Standard input holds JSON of the cases (name -> what config.json holds, and the cache's type); standard output gets one
JSON line for each: its layers by kind, with the bytes that a token of one layer takes, or a request where a layer keeps
a state. Models are made on PyTorch's meta device, so that a terabyte of weights takes no memory.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "VLLM_PLUGINS": ""}

SPARSE_MLA = "vllm.v1.attention.backends.mla.flashmla_sparse.FlashMLASparseBackend"


def main() -> None:
    """Answer for every case; what the engine cannot make is an error in words."""
    import torch
    import vllm
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.worker.workspace import init_workspace_manager

    choose = CpuPlatform.get_attn_backend_cls

    def as_on_hopper(platform: Any, selected_backend: Any, attn_selector_config: Any, **more: Any) -> str:
        """Return the backend of a layer; CPUs have none for sparse MLA, so that layer gets Hopper's."""
        return SPARSE_MLA if attn_selector_config.use_sparse else choose(selected_backend, attn_selector_config, **more)

    CpuPlatform.get_attn_backend_cls = classmethod(as_on_hopper)
    torch.accelerator.empty_cache = lambda: None  # sparse MLA makes its workspace and asks for it
    init_workspace_manager(torch.device("cpu"))
    cases: dict[str, Any] = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the engine writes to standard output as well
    print(json.dumps({"vllm": vllm.__version__, "torch": torch.__version__}), file=answers, flush=True)
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "config.json").write_text(json.dumps(case["config"]))
            try:
                config = EngineArgs(
                    model=directory,
                    skip_tokenizer_init=True,
                    load_format="dummy",
                    dtype="bfloat16",
                    kv_cache_dtype=case["cache"],
                    enforce_eager=True,
                    max_model_len=case["context"],
                    max_num_batched_tokens=case["batched"],
                ).create_engine_config()
                answer: dict[str, Any] = {"layers": layers(config)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps({"name": name, **answer}), file=answers, flush=True)


def layers(config: Any) -> list[dict[str, Any]]:
    """Return the model's layers with a cache, equal ones counted.

    `token` is what one token takes in one layer, where the layer keeps every token; `request` what a request of full
    length takes at most in one that keeps a window of them or a state.
    """
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    with set_current_vllm_config(config), set_default_torch_dtype(torch.bfloat16):
        if parallel_state.model_parallel_is_initialized():
            parallel_state.destroy_model_parallel()
        else:
            parallel_state.init_distributed_environment(1, 0, "tcp://127.0.0.1:0", 0, "gloo")
        parallel_state.initialize_model_parallel(1, 1)  # for each: a model without experts has no group for them
        with torch.device("meta"):
            initialize_model(vllm_config=config)
        found: Counter[tuple[str, float, int]] = Counter()
        for layer in config.compilation_config.static_forward_context.values():
            spec = layer.get_kv_cache_spec(config) if isinstance(layer, AttentionLayerBase) else None
            if spec is not None:
                kind = type(spec).__name__
                whole = kind in ("FullAttentionSpec", "MLAAttentionSpec")
                token = spec.page_size_bytes / spec.block_size if whole else 0
                found[kind, token, 0 if whole else spec.max_memory_usage_bytes(config)] += 1
    return [
        {"kind": kind, "count": count, "token": token, "request": request}
        for (kind, token, request), count in found.items()
    ]


if __name__ == "__main__":
    main()
