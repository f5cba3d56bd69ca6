"""How fast each of vLLM's loaders gets a host's weights from the disk onto its GPUs; run by the engine's own Python.

It runs vLLM's own iterators over some of the files, in one process for each GPU, grouped and sliced as the engine's
ranks are, so that what is measured is what an engine on this host does: which files are read how often, collectives
between ranks that load together, copies to the GPU. A loader that fails says why and spoils no other. Nothing stays.

Needs vLLM 0.24 or later. Each loader has processes of its own: forked once vLLM is imported, before any CUDA context.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import queue
import tempfile
import threading
import time
import traceback
from typing import Any

Json = dict[str, Any]

AUTO, CACHED = "auto", "auto-cached"
MODULES = {
    "instanttensor": "instanttensor",
    "fastsafetensors": "fastsafetensors",
    "runai_streamer": "runai_model_streamer",
}
"""Loader, as `--load-format` has it -> the module that it needs beside vLLM."""
_ITERATORS = {
    AUTO: "safetensors_weights_iterator",
    "instanttensor": "instanttensor_weights_iterator",
    "fastsafetensors": "fastsafetensors_weights_iterator",
    "runai_streamer": "runai_safetensors_weights_iterator",
}
_COLLECTIVE = ("instanttensor", "fastsafetensors")
"""Loaders whose ranks pass tensors to each other, if they are in one world group."""
_WEIGHTS = "vllm.model_executor.model_loader.weight_utils"
_FILTER = "vllm.model_executor.model_loader.ep_weight_filter"
_LOOK = 0.01
"""Seconds between two looks at the GPU's free memory."""


def main(request: Json) -> Json:
    """Measure every loader that is installed.

    Args:
        request: `files`: loader -> paths of safetensors; `ranks`: processes, one for each GPU; `tensor_parallel`:
            consecutive ranks that take a slice each; `together`: consecutive ranks that load in one group;
            `experts`: {count, ranks, first}: experts of a layer, over how many ranks of the whole engine they are
            divided, and which of them is this host's first; None without expert parallelism; `filtered`: whether ranks
            skip the experts of others (--enable-ep-weight-filter); `seconds`: for each loader.

    Returns:
        `loaders`: name -> {rate: bytes of the files a second, peak: bytes of a GPU's memory that loading took beyond
        what it loads} or {error}; `auto-cached` is `auto` over files that the page cache has just got.
    """
    try:
        weights = importlib.import_module(_WEIGHTS)
    except Exception as error:
        return {"error": f"vLLM cannot be imported: {_sentence(error)}"}
    loaders: Json = {}
    for name, paths in request["files"].items():
        module = MODULES.get(name)
        if name not in _ITERATORS or not hasattr(weights, _ITERATORS[name]):
            loaders[name] = {"error": "this vLLM has no such loader"}
        elif module and importlib.util.find_spec(module) is None:
            loaders[name] = {"error": f"{module} is not installed"}
        else:
            loaders[name] = _measured(request, name, paths, cold=True)
            if name == AUTO and "rate" in loaders[name]:
                loaders[CACHED] = _measured(request, name, paths, cold=False)
    return {"loaders": loaders}


def _measured(request: Json, name: str, paths: list[str], *, cold: bool) -> Json:
    """Have one process for each rank load some files; the rate of the slowest, and the most memory of any."""
    if cold:
        for path in paths:
            _forget(path)
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="muster-loaders-") as directory:
        begin, answers = context.Barrier(request["ranks"]), context.Queue()
        ranks = [
            context.Process(target=_rank, args=(request, name, paths, rank, directory, begin, answers), daemon=True)
            for rank in range(request["ranks"])
        ]
        for process in ranks:
            process.start()
        try:
            found = _collected(answers, ranks, time.monotonic() + request["seconds"])
        finally:
            for process in ranks:
                process.kill()
                process.join()
    failed = [each["error"] for each in found if "error" in each]
    if failed:
        return {"error": failed[0]}
    took = max(each["seconds"] for each in found)
    size = sum(os.stat(path).st_size for path in paths)
    return {"rate": int(size / took), "peak": max(each["peak"] for each in found)}


def _collected(answers: Any, ranks: list[Any], deadline: float) -> list[Json]:
    found: list[Json] = []
    while len(found) < len(ranks):
        try:
            found.append(answers.get(timeout=0.2))
        except queue.Empty:
            ended = [process.exitcode for process in ranks if process.exitcode]
            if ended:
                return [{"error": f"a process of it ended with {ended[0]}"}]
            if time.monotonic() > deadline:
                return [{"error": "it was not done in time"}]
        if found and "error" in found[-1]:
            break  # the others wait for it
    return found


def _rank(request: Json, name: str, paths: list[str], rank: int, directory: str, begin: Any, answers: Any) -> None:
    """Be one rank, in a process of its own."""
    try:
        answers.put(_load(request, name, list(paths), rank, directory, begin))
    except threading.BrokenBarrierError:
        pass  # another rank has said why
    except BaseException as error:
        answers.put({"error": _sentence(error)})
        begin.abort()


def _load(request: Json, name: str, paths: list[str], rank: int, directory: str, begin: Any) -> Json:
    import torch  # type: ignore[import-not-found,unused-ignore]

    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(rank)
    if name in _COLLECTIVE:
        _meet(request["together"], rank, directory, "nccl" if cuda else "gloo")
    own = _own_experts(request["experts"], rank)
    words: Json = {"local_expert_ids": own} if request["filtered"] and name in (AUTO, "instanttensor") else {}
    taken = _Taken(request, own, rank, cuda)
    with _lowest_memory(rank) if cuda else contextlib.nullcontext([0, 0]) as memory:
        begin.wait()
        began = time.monotonic()
        for weight, tensor in getattr(importlib.import_module(_WEIGHTS), _ITERATORS[name])(paths, False, **words):
            taken.take(weight, tensor)
        if cuda:
            torch.cuda.synchronize()
        took = time.monotonic() - began
    return {"seconds": took, "peak": memory[0] - memory[1]}


class _Taken:
    """What a rank keeps of each tensor, copied to where a parameter would be."""

    def __init__(self, request: Json, own: set[int] | None, rank: int, cuda: bool) -> None:
        self._slices, self._slice = request["tensor_parallel"], rank % request["tensor_parallel"]
        self._own, self._device = own, f"cuda:{rank}" if cuda else "cpu"
        self._expert_of = importlib.import_module(_FILTER).parse_expert_id if own is not None else None
        self._room: Any = None

    def take(self, name: str, tensor: Any) -> None:
        import torch  # type: ignore[import-not-found,unused-ignore]

        expert = self._expert_of(name) if self._expert_of else None
        if expert is not None:
            if self._own is not None and expert not in self._own:
                return
        elif self._slices > 1 and tensor.dim() > 1 and tensor.shape[0] % self._slices == 0:
            size = tensor.shape[0] // self._slices
            tensor = tensor.narrow(0, self._slice * size, size)
        tensor = tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor.new_empty(0)
        if self._room is None or len(self._room) < len(tensor):
            self._room = torch.empty(len(tensor), dtype=torch.uint8, device=self._device)
        self._room[: len(tensor)].copy_(tensor)


def _meet(together: int, rank: int, directory: str, backend: str) -> None:
    """Form vLLM's world group of the ranks that load together; one that loads alone has none."""
    if together == 1:
        return
    from vllm.distributed import parallel_state  # type: ignore[import-not-found,unused-ignore]

    where = f"file://{directory}/world{rank // together}"
    parallel_state.init_distributed_environment(together, rank % together, where, rank, backend)


def _own_experts(experts: Json | None, rank: int) -> set[int] | None:
    if experts is None:
        return None
    own = importlib.import_module(_FILTER).compute_local_expert_ids
    # Ranks of a later pipeline stage divide the experts of its layers anew.
    ids: set[int] | None = own(experts["count"], experts["ranks"], (experts["first"] + rank) % experts["ranks"])
    return ids


@contextlib.contextmanager
def _lowest_memory(rank: int) -> Any:
    """Yield [free bytes of a GPU before, the least of them meanwhile]."""
    import torch  # type: ignore[import-not-found,unused-ignore]

    torch.ones(1, device=f"cuda:{rank}")
    before = torch.cuda.mem_get_info(rank)[0]
    memory, ended = [before, before], threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK):
            memory[1] = min(memory[1], torch.cuda.mem_get_info(rank)[0])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()


def _forget(path: str) -> None:
    """Have the next reader read the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def _sentence(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(type(error), error)).strip()[-400:]
