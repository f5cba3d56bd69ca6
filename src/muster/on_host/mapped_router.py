"""A plugin of vLLM's that puts right what `--load-format ipc_cache` leaves on the meta device.

vLLM 0.33.0 builds the model on the meta device and then registers the daemon's tensors in place of its parameters. An
object that is no module keeps the parameter it was built with: the router of a layer of experts keeps the meta tensor
of the gate's `e_score_correction_bias`, which has no memory, and hands it to the routing kernel. This gives each such
object its mapped tensor. MUSTER_ROUTER=look only prints what is held so, and an empty one does nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from typing import Any

WORD, BIND = "MUSTER_ROUTER", "bind"
DEPTH = 4


def register() -> None:
    """Have the loader look at, or after, its model; vLLM calls this in every process."""
    how = os.environ.get(WORD, BIND)
    if not how:
        return
    # By name: no type checker has this package.
    IpcModelLoader = import_module("vllm.model_executor.model_loader.weight_cache.ipc_loader").IpcModelLoader
    mapping = IpcModelLoader._apply_entries
    if getattr(mapping, "looks", False):
        return

    def apply(self: Any, model: Any, state: Any, device_index: int) -> None:
        built = list(_tensors(model))  # kept, so that no other object gets the id of one that is replaced
        named = {id(tensor): name for name, tensor in built}
        mapping(self, model, state, device_index)
        mapped, held = dict(_tensors(model)), Counter[str]()
        for owner, key, tensor in _held(model):
            name = named.get(id(tensor), "")
            held[f"{type(owner).__name__}.{key}"] += 1 if name else 0
            if how == BIND and name and name not in mapped:
                raise RuntimeError(f"{type(owner).__name__}.{key} holds {name}, which no daemon gave: it has no memory")
            if how == BIND and name:
                object.__setattr__(owner, key, mapped[name])
        print(WORD, how, dict(+held), flush=True)

    apply.looks = True  # type: ignore[attr-defined]
    IpcModelLoader._apply_entries = apply


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _held(model: Any) -> list[tuple[Any, str, Any]]:
    """Return (owner, attribute, tensor) of every tensor on the meta device that is no registered one of a module."""
    found: list[tuple[Any, str, Any]] = []
    seen: set[int] = set()
    todo = [(module, 0) for module in model.modules()]
    while todo:
        owner, depth = todo.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        for key, value in list(getattr(owner, "__dict__", {}).items()):
            if getattr(getattr(value, "device", None), "type", "") == "meta":
                found.append((owner, key, value))
            elif _is_plain(value) and depth < DEPTH:
                todo.append((value, depth + 1))
    return found


def _is_plain(value: Any) -> bool:
    home = type(value).__module__
    return home.startswith("vllm.") and "config" not in home and not hasattr(value, "named_modules")
