"""The plugin gives a router that is no module the tensor that its gate was given, where it is told to."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from muster.on_host import mapped_router

LOADER = "vllm.model_executor.model_loader.weight_cache.ipc_loader"


class Tensor:
    def __init__(self, device: str) -> None:
        self.device = SimpleNamespace(type=device)


class Router:
    """Holds a parameter of the gate, as an object that is no module."""

    def __init__(self, bias: Tensor) -> None:
        self.e_score_correction_bias = bias
        self.again = self


Router.__module__ = "vllm.model_executor.layers.fused_moe.router.grouped_topk_router"


class Layer:
    def __init__(self) -> None:
        self.parameters = {"gate.bias": Tensor("meta")}
        self.router = Router(self.parameters["gate.bias"])
        self.scratch = Tensor("meta")

    def modules(self) -> list[Layer]:
        return [self]

    def named_modules(self) -> list[tuple[str, Layer]]:
        return [("", self)]

    def named_parameters(self, *, remove_duplicate: bool) -> list[tuple[str, Tensor]]:
        return list(self.parameters.items())

    def named_buffers(self, *, remove_duplicate: bool) -> list[tuple[str, Tensor]]:
        return []


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Any:
    class IpcModelLoader:
        def _apply_entries(self, model: Layer, state: object, device_index: int) -> None:
            model.parameters["gate.bias"] = Tensor("cuda")

    module = ModuleType(LOADER)
    module.IpcModelLoader = IpcModelLoader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, LOADER, module)
    for parent in ("", ".model_executor", ".model_executor.model_loader", ".model_executor.model_loader.weight_cache"):
        monkeypatch.setitem(sys.modules, f"vllm{parent}", ModuleType(f"vllm{parent}"))
    return IpcModelLoader


@pytest.mark.parametrize(("how", "device"), [("bind", "cuda"), ("look", "meta"), ("", "meta")])
def test_the_router_gets_what_the_gate_was_given(
    loader: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str, device: str
) -> None:
    monkeypatch.setenv(mapped_router.WORD, how)
    mapped_router.register()
    mapped_router.register()  # every process calls it, some twice
    model = Layer()
    loader()._apply_entries(model, None, 0)
    assert model.router.e_score_correction_bias.device.type == device
    assert model.scratch.device.type == "meta"
    said = f"{mapped_router.WORD} {how} {{'Router.e_score_correction_bias': 1}}\n" if how else ""
    assert capsys.readouterr().out == said
