"""One host's share of an all-reduce across the group, run by the engine's own Python; it leaves nothing behind.

Needs the installed torch. It forks one child per GPU before it imports torch: children must not share a CUDA context.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import tempfile
import time
import traceback
from typing import Any

Json = dict[str, Any]

WARM_UP = 5
ROUNDS = 20
LOG_LIMIT = 512 * 1024


def environment(request: Json, log: str) -> None:
    """Set the variables of NCCL and Gloo: where to log, and which interface to use."""
    os.environ.update(request.get("env") or {})
    os.environ["NCCL_DEBUG"] = "INFO"
    os.environ["NCCL_DEBUG_FILE"] = log
    if request.get("interface"):
        # As the plan sets it: without `=` a name is a prefix.
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "=" + request["interface"])
        os.environ["GLOO_SOCKET_IFNAME"] = request["interface"]


def work(request: Json, local: int) -> Json:
    """Be one rank: meet the others, time all-reduces, return the median time."""
    from datetime import timedelta

    import torch  # type: ignore[import-not-found,unused-ignore]
    import torch.distributed as dist  # type: ignore[import-not-found,unused-ignore]

    rank, world = request["node"] * request["gpus"] + local, request["nodes"] * request["gpus"]
    cuda = request["backend"] == "nccl"
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    address = f"[{request['master']}]" if ":" in request["master"] else request["master"]
    dist.init_process_group(
        request["backend"],
        init_method=f"tcp://{address}:{request['port']}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=request["seconds"]),
    )
    tensor = torch.ones(request["bytes"] // 4, dtype=torch.float32, device=device)
    times = []
    for turn in range(WARM_UP + ROUNDS):
        tensor.fill_(1.0)
        if cuda:
            torch.cuda.synchronize()
        before = time.perf_counter()
        dist.all_reduce(tensor)
        if cuda:
            torch.cuda.synchronize()
        if turn >= WARM_UP:
            times.append(time.perf_counter() - before)
    if float(tensor[0]) != world or float(tensor[-1]) != world:
        raise ArithmeticError(f"the sum over {world} ranks came out as {float(tensor[0])}")
    dist.destroy_process_group()
    return {"ranks": world, "seconds": statistics.median(times), "bytes": request["bytes"]}


def child(request: Json, local: int, directory: str) -> None:
    """Run one rank in a forked process and leave its answer in a file; never returns."""
    path = os.path.join(directory, f"rank{local}.json")
    try:
        environment(request, os.path.join(directory, f"log{local}.txt"))
        answer = work(request, local)
    except BaseException as error:
        lines = traceback.format_exception_only(type(error), error)
        answer = {"error": "".join(lines).strip()[-400:]}
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(answer, file)
    os.rename(path + ".new", path)
    os._exit(0)


def wait(children: list[int], deadline: float) -> bool:
    """Wait for the children and kill those that are late; return whether none was."""
    left = set(children)
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0] == 0}
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return not left


def main(request: Json) -> Json:
    """Take part in an all-reduce.

    Args:
        request: `node` (0 is the host where they meet), `nodes`, `gpus` of this host, `master` (address), `port`,
            `interface`, `env` (further NCCL variables), `backend` (`nccl`, `gloo`), `bytes`, `seconds` (for
            all of it).
    """
    directory = tempfile.mkdtemp(prefix="muster-nccl-")
    try:
        children = []
        for local in range(request["gpus"]):
            pid = os.fork()
            if not pid:
                child(request, local, directory)
            children.append(pid)
        in_time = wait(children, time.monotonic() + request["seconds"])
        answers = []
        for local in range(request["gpus"]):
            try:
                with open(os.path.join(directory, f"rank{local}.json"), encoding="utf-8") as file:
                    answers.append(json.load(file))
            except (OSError, ValueError):
                answers.append({"error": "died" if in_time else f"not done in {request['seconds']:g} s"})
        failed = [f"GPU {i}: {a['error']}" for i, a in enumerate(answers) if "error" in a]
        if failed:
            return {"error": "; ".join(failed[:4])}
        log = ""
        for local in range(request["gpus"]):
            path = os.path.join(directory, f"log{local}.txt")
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    lines = file.read(16 * LOG_LIMIT).splitlines()
                log += "\n".join(line for line in lines if " via " in line) + "\n"
        return {**answers[0], "seconds": max(a["seconds"] for a in answers), "log": log[:LOG_LIMIT]}
    finally:
        shutil.rmtree(directory, ignore_errors=True)
