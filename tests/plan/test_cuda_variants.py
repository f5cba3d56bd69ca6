"""The CUDA variant that a driver gets."""

from __future__ import annotations

import pytest

from muster.errors import Refusal
from muster.plan import cuda_variants
from muster.plan.cuda_variants import CPU, CU129, CU130


@pytest.mark.parametrize(
    ("driver", "vllm", "requested", "variant"),
    [
        ("580.159.04", "0.33.0", "auto", CU130),
        ("590.48.01", "0.33.0", None, CU130),
        ("579.99", "0.33.0", "auto", CU129),
        ("535.183.01", "0.33.0", "auto", CU129),
        ("525.60.13", "0.33.0", "auto", CU129),
        ("580.159.04", "0.12.0", "auto", CU129),
        ("580.159.04", "0.33.0", "cu129", CU129),
        (None, "0.33.0", "cpu", CPU),
    ],
)
def test_newest_variant_that_the_driver_runs(
    driver: str | None, vllm: str, requested: str | None, variant: cuda_variants.Variant
) -> None:
    assert cuda_variants.choose(driver, vllm=vllm, requested=requested) == variant


@pytest.mark.parametrize(
    ("driver", "requested", "found", "needed"),
    [
        ("515.65.01", "auto", "h3: driver 515.65.01", "driver 525 or newer"),
        ("535.183.01", "cu130", "h3: driver 535.183.01", "driver 580 or newer"),
        (None, "auto", "h3: no NVIDIA driver answers", "driver 525 or newer"),
        ("580.1.1", "cu118", "torch_backend is cu118", "cu130, cu129, cpu or auto"),
    ],
)
def test_refuses_what_no_variant_fits(driver: str | None, requested: str, found: str, needed: str) -> None:
    with pytest.raises(Refusal) as refusal:
        cuda_variants.choose(driver, vllm="0.33.0", requested=requested, host="h3")
    assert refusal.value.found == found
    assert needed in refusal.value.needed
    assert refusal.value.fix


def test_a_group_gets_what_its_oldest_driver_runs() -> None:
    drivers = {"a": "580.159.04", "b": "535.183.01", "c": "580.95.05"}
    assert cuda_variants.choose_for(drivers, vllm="0.33.0") == CU129
    assert cuda_variants.oldest(drivers) == "b"
    with pytest.raises(Refusal, match="b: no NVIDIA driver"):
        cuda_variants.choose_for({**drivers, "b": None}, vllm="0.33.0")


@pytest.mark.parametrize(
    ("driver", "assumed", "other"),
    [
        ("580.159.04", "cu130", None),
        ("570.124.06", "cu130", "cu129"),
        ("570.124.06", "cu129", None),
        ("570.124.06", None, None),
        ("515.65.01", "cu130", None),
    ],
)
def test_when_the_drivers_call_for_another_variant(driver: str, assumed: str | None, other: str | None) -> None:
    assert cuda_variants.other_variant({"a": "590.1", "b": driver}, vllm="0.33.0", assumed=assumed) == other


def test_no_driver_known_changes_no_plan() -> None:
    assert cuda_variants.other_variant({}, vllm="0.33.0", assumed="cu130") is None
