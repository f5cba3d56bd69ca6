"""Which CUDA variant of the engine is installed, from where, and that the two ways to say it are one release."""

from __future__ import annotations

import pytest

from muster.errors import Refusal
from muster.plan.release import Chosen, chosen, notes, release_of
from muster.spec.settings import Settings
from tests import sample_plans


@pytest.mark.parametrize(
    ("settings", "variant"),
    [
        ({}, Chosen("cu130", assumed=True)),
        ({"vllm_version": "0.19.1"}, Chosen("cu129", assumed=True)),
        ({"torch_backend": "cu129"}, Chosen("cu129")),
        ({"torch_backend": "cpu"}, Chosen("cpu")),
        ({"torch_backend": None}, Chosen(None)),
        ({"vllm_version": "0.32.0+cpu", "torch_backend": None}, Chosen("cpu")),
        ({"vllm_version": "0.33.0+cu129"}, Chosen("cu129")),
        ({"engine_path": "/opt/mine"}, Chosen(None)),
        ({"engine_requirements": ["vllm @ https://mirror.example/vllm.whl"]}, Chosen(None)),
        ({"engine_requirements": ["torch==2.13.0"]}, Chosen("cu130", assumed=True)),
    ],
)
def test_who_decides_the_variant(settings: dict[str, object], variant: Chosen) -> None:
    assert chosen(Settings(**settings)) == variant  # type: ignore[arg-type]


def test_the_index_s_own_variant_needs_no_other_index() -> None:
    release = release_of(Settings(), ray=False)
    assert release.requirements == ("vllm==0.33.0",)
    assert release.install_args == ("--torch-backend", "cu130")
    # A setting that fixes what was chosen anyway installs nothing anew.
    assert release_of(Settings(torch_backend="cu130"), ray=False) == release


def test_another_variant_comes_from_its_own_index_first() -> None:
    settings = Settings(torch_backend="cu129", extra_index_urls=["https://mirror.example/simple"])
    release = release_of(settings, ray=False)
    assert release.requirements == ("vllm==0.33.0+cu129",)
    assert release.install_args == (
        *("--extra-index-url", "https://wheels.vllm.ai/0.33.0/cu129"),
        *("--extra-index-url", "https://mirror.example/simple"),
        *("--torch-backend", "cu129"),
    )
    assert release.id.startswith("vllm-0.33.0+cu129-py3.12-")
    assert release.id != release_of(Settings(), ray=False).id


def test_a_mirror_of_that_index_is_a_setting() -> None:
    settings = Settings(torch_backend="cu129", vllm_index_url="https://mirror.example/vllm-{build}-{version}")
    assert "https://mirror.example/vllm-cu129-0.33.0" in release_of(settings, ray=False).install_args
    with pytest.raises(Refusal, match="password"):
        release_of(Settings(vllm_index_url="https://me:secret@mirror.example/{build}"), ray=False)


def test_a_version_before_cuda_13_has_its_variant_in_the_package_index() -> None:
    release = release_of(Settings(vllm_version="0.19.1", torch_backend="cu129"), ray=False)
    assert release.requirements == ("vllm==0.19.1",)
    assert release.install_args == ("--torch-backend", "cu129")


def test_a_wheel_of_one_s_own_is_left_alone() -> None:
    release = release_of(Settings(engine_requirements=["vllm @ file:///srv/vllm.whl"]), ray=False)
    assert release.requirements == ("vllm @ file:///srv/vllm.whl",)
    assert release.install_args == ("--torch-backend", "auto")


def test_the_plan_says_what_it_assumes_and_another_variant_is_another_plan() -> None:
    assumed = sample_plans.plan("kimi-k2-instruct", 2, "H200")
    fixed = sample_plans.plan("kimi-k2-instruct", 2, "H200", torch_backend="cu130")
    other = sample_plans.plan("kimi-k2-instruct", 2, "H200", torch_backend="cu129")
    assert (assumed.cuda_variant, assumed.cuda_variant_assumed) == ("cu130", True)
    assert (fixed.cuda_variant, fixed.cuda_variant_assumed) == ("cu130", False)
    assert assumed.digest == fixed.digest != other.digest


@pytest.mark.parametrize(
    ("settings", "requirements", "says"),
    [
        ({}, ("vllm==0.33.0", "vllm[audio]", "mistral_common>=1.11"), ["installed with the engine"]),
        (
            {"engine_requirements": ["Mistral.Common==1.12.0"]},
            ("vllm==0.33.0", "Mistral.Common==1.12.0", "vllm[audio]"),
            ["installed with the engine, as the recipe asks: vllm[audio]"],
        ),
        (
            {"engine_requirements": ["vllm @ file:///srv/vllm.whl"]},
            ("vllm @ file:///srv/vllm.whl", "vllm[audio]", "mistral_common>=1.11"),
            ["installed with the engine"],
        ),
        (
            {"engine_path": "/opt/mine"},
            ("vllm==0.33.0", "vllm[audio]", "mistral_common>=1.11"),
            ["install them into /opt/mine yourself"],
        ),
    ],
)
def test_a_recipe_s_packages_are_part_of_the_release(
    settings: dict[str, object], requirements: tuple[str, ...], says: list[str]
) -> None:
    packages = ("vllm[audio]", "mistral_common>=1.11")
    chosen_settings = Settings(**settings)  # type: ignore[arg-type]
    release = release_of(chosen_settings, ray=False, packages=packages)
    assert release.requirements == requirements
    if release.managed:
        assert release.id != release_of(chosen_settings, ray=False).id
    (said,) = notes(packages, chosen_settings)
    assert all(words in said for words in says)
    assert notes((), chosen_settings) == []
