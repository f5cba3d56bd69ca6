"""The driver, and the CUDA variant it lets the engine run."""

from __future__ import annotations

from collections.abc import Iterator

from muster.errors import Refusal
from muster.plan import cuda_variants
from muster.preflight.host_report import HostReport
from muster.preflight.needs import Needs
from muster.preflight.tool_text import Unreadable
from muster.preflight.verdict import Verdict, fail, ok
from muster.spec.versions import version

# The kernel still runs the module of before the update.
REBOOT = "reboot the host: the driver was updated, and the old one is still loaded"
INSTALL = "install NVIDIA driver 580 or newer with the distribution's packages, and reboot"


def check(report: HostReport, needs: Needs) -> Iterator[Verdict]:
    """Judge the driver; a host without planned GPUs needs none."""
    if not needs.gpus:
        return
    if isinstance(report.gpus, Unreadable):
        mismatch = "version mismatch" in report.gpus.why.lower()
        fix = REBOOT if mismatch else INSTALL
        yield fail("driver.present", report.gpus.why, "nvidia-smi that answers", fix)
        return
    if report.driver is None:
        yield fail("driver.present", "nvidia-smi names no driver version", "a loaded driver", INSTALL)
        return
    yield ok("driver.present", "nvidia-smi answers")
    found, floor = version(report.driver) or (), version(needs.min_driver or "") or ()
    oldest = min(variant.driver for variant in cuda_variants.offered(needs.vllm))
    if found < floor:
        yield fail("driver.version", report.driver, f"{needs.min_driver} or newer (min_driver)", INSTALL)
        return
    if needs.torch_backend != cuda_variants.CPU.name and found < (oldest,):
        wanted = f"{oldest} or newer: no build of vLLM {needs.vllm} runs on an older one"
        yield fail("driver.version", report.driver, wanted, INSTALL)
        return
    yield ok("driver.version", report.driver)
    if needs.torch_backend is None:
        return
    try:
        variant = cuda_variants.choose(report.driver, vllm=needs.vllm, requested=needs.torch_backend)
    except Refusal as refusal:
        yield fail("driver.build", refusal.found, refusal.needed, "set torch_backend to auto, or " + INSTALL)
        return
    chosen = needs.cuda_variant or variant.name
    if needs.torch_backend != "auto":
        why = "as the settings say"
    else:
        why = f"for driver {report.driver}" if chosen == variant.name else "for the group's oldest driver"
    yield ok("driver.build", f"{chosen} ({why})")
