"""The engine as installed; no verdicts before it is."""

from __future__ import annotations

from collections.abc import Iterator

from muster.errors import Refusal
from muster.plan import cuda_variants
from muster.preflight.host_report import NOT_ASKED, HostReport, Installed
from muster.preflight.needs import Needs
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict, fail, ok, warn
from muster.spec import versions

AGAIN = "remove {path} on this host and run the deploy again; it installs the chosen build"
OWN = "install another vLLM in {path}, or a newer driver, or unset engine_path so that muster chooses"


def check(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    """Judge the installed variant, and its import where that was tried."""
    installed = report.installed
    if not isinstance(installed, Installed) or "torch" not in installed.versions:
        return
    if needs.ray:
        yield _ray(installed.versions.get("ray"), needs.ray)
    fix = (OWN if needs.torch_backend is None else AGAIN).format(path=needs.release)
    try:
        variant = cuda_variants.choose(
            report.driver, vllm=needs.vllm, requested=needs.cuda_variant or needs.torch_backend
        )
    except Refusal:
        return  # driver.build reports it
    cuda = _cuda(installed.cuda or "unknown", variant, report.driver, fix)
    # Where the user's own engine or index decides, any variant that the driver runs is as good as another.
    yield ok(cuda.check, cuda.found) if needs.torch_backend is None and cuda.level == "warn" else cuda
    if isinstance(installed.imported, Unreadable):
        if installed.imported != NOT_ASKED:
            yield fail("engine.import", installed.imported.why, "vLLM and torch that import", fix)
    else:
        yield ok("engine.import", f"vLLM {installed.imported.get('vllm')}")


def _ray(installed: str | None, floor: tuple[int, int, int]) -> Verdict:
    needed = f"Ray {'.'.join(map(str, floor))} or newer: older ones ignore the group's token and run anybody's code"
    if installed is not None and (versions.version(installed) or (0,)) >= floor:
        return ok("engine.ray", f"Ray {installed}")
    return fail(
        "engine.ray", f"Ray {installed or 'is missing'}", needed, "install it into engine_path, or set executor to mp"
    )


def _cuda(installed: str, variant: cuda_variants.Variant, driver: str | None, fix: str) -> Verdict:
    if installed == variant.cuda:
        return ok("engine.cuda", f"CUDA {installed}")
    runs = any(known.cuda.split(".")[0] == installed.split(".")[0] for known in cuda_variants.runnable(driver))
    needed = f"CUDA {variant.cuda} ({variant.name})"
    if runs and variant != cuda_variants.CPU:
        return warn("engine.cuda", f"CUDA {installed}, which this driver runs", needed, fix)
    return fail("engine.cuda", f"CUDA {installed}", needed, fix)
