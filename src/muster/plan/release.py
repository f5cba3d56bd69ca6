"""One installed engine: which CUDA variant uv puts into its virtual environment, and the directory named after it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from muster.on_host import places
from muster.on_host.whole_files import text_sha256
from muster.plan import cuda_variants
from muster.plan.types import Release
from muster.spec.safe_text import package_name
from muster.spec.settings import Settings


@dataclass(frozen=True)
class Chosen:
    """The CUDA variant of the engine that a plan installs.

    Args:
        cuda_variant: its name, `cu130`; None where muster does not choose: an engine or a wheel of the user's own.
        assumed: no setting says it, and no host's driver was asked.
    """

    cuda_variant: str | None
    assumed: bool = False


def chosen(settings: Settings) -> Chosen:
    """Return which variant the settings ask for; "auto" is the index's own until the drivers are known."""
    backend, local = settings.torch_backend, settings.vllm_version.partition("+")[2]
    if settings.engine_path is not None or (backend is None and local not in cuda_variants.VARIANTS):
        return Chosen(None)
    if local in cuda_variants.VARIANTS:
        return Chosen(local)
    if backend != "auto":
        return Chosen(backend)
    return (
        Chosen(None)
        if _brings_own(settings)
        else Chosen(cuda_variants.default(settings.vllm_version).name, assumed=True)
    )


def _brings_own(settings: Settings) -> bool:
    return any(package_name(requirement) == "vllm" for requirement in settings.engine_requirements)


def added(packages: Sequence[str], settings: Settings) -> list[str]:
    """Return a recipe's packages without those that a setting names: `engine_requirements` decides there.

    Of vLLM itself a recipe asks for extras, and a setting for the version: both hold.
    """
    own = {package_name(requirement) for requirement in settings.engine_requirements} - {"vllm"}
    return [requirement for requirement in packages if package_name(requirement) not in own]


def notes(packages: Sequence[str], settings: Settings) -> list[str]:
    """Return what a plan should say of a recipe's packages."""
    mine = added(packages, settings)
    if not mine:
        return []
    if settings.engine_path is not None:
        return [f"the recipe asks for {', '.join(mine)}: install them into {settings.engine_path} yourself"]
    return [f"installed with the engine, as the recipe asks: {', '.join(mine)}"]


def release_of(settings: Settings, *, ray: bool, packages: Sequence[str] = ()) -> Release:
    """Return the release the settings ask for.

    Args:
        settings: of the group.
        ray: whether the strategy needs Ray; vLLM's wheel no longer requires it (since 0.18).
        packages: that the recipe asks for.

    Raises:
        Refusal: an index address that carries a password, which would end in world-readable places.
    """
    pinned = {package_name(requirement) for requirement in settings.engine_requirements}
    requirements = list(settings.engine_requirements)
    variant = chosen(settings).cuda_variant
    version = settings.vllm_version
    other = "vllm" not in pinned and "+" not in version and _has_index(version, variant)
    if other:
        version += f"+{variant}"
    if "vllm" not in pinned:
        requirements.insert(0, f"vllm=={version}")
    if ray and "ray" not in pinned:
        requirements.append(f"ray=={settings.ray_version}")
    requirements += [extra for extra in (settings.deep_ep, settings.deep_gemm) if extra]
    requirements += added(packages, settings)
    backend = settings.torch_backend and (variant or settings.torch_backend)
    content = [settings.python_version, requirements, settings.overrides, backend]
    name = text_sha256(json.dumps(content))[:8]
    release = f"vllm-{version}-py{settings.python_version}-{name}"
    return Release(
        id=release if settings.engine_path is None else settings.engine_path.strip("/").replace("/", "-"),
        path=settings.engine_path or f"{settings.root}/{places.ENGINES}/{release}",
        managed=settings.engine_path is None,
        python=settings.python_version,
        requirements=tuple(requirements),
        overrides=tuple(settings.overrides),
        install_args=tuple(_install_args(settings, backend, variant if other else None)),
        env=_install_env(settings),
    )


def _has_index(vllm: str, variant: str | None) -> bool:
    """Whether a variant has an index of its own; the other variant's torch alone would not import."""
    return variant in {one.name for one in cuda_variants.offered(vllm)[1:]}


def _install_args(settings: Settings, backend: str | None, variant: str | None) -> list[str]:
    argv: list[str] = []
    if settings.index_url:
        argv += ["--index-url", settings.index_url]
    if variant:  # first: uv takes a package from the first index that has it
        url = settings.vllm_index_url.replace("{version}", settings.vllm_version).replace("{build}", variant)
        argv += ["--extra-index-url", url]
    for url in settings.extra_index_urls:
        argv += ["--extra-index-url", url]
    for place in settings.find_links:
        argv += ["--find-links", place]
    if backend:
        argv += ["--torch-backend", backend]
    return argv


def _install_env(settings: Settings) -> dict[str, str]:
    env = {"UV_PYTHON_INSTALL_DIR": f"{settings.root}/{places.PYTHON}", "UV_NO_PROGRESS": "1"}
    if settings.uv_cache_dir:
        env |= {"UV_CACHE_DIR": settings.uv_cache_dir, "UV_LINK_MODE": "copy"}
    if settings.ssl_cert_file:
        env["SSL_CERT_FILE"] = settings.ssl_cert_file
    if settings.bundle and settings.find_links:  # wheels and Python from there, and nothing from any network
        place = settings.find_links[0].removesuffix("/wheels")
        env |= {"UV_NO_INDEX": "1", "UV_OFFLINE": "1", "UV_PYTHON_INSTALL_MIRROR": f"file://{place}/python"}
    if settings.proxy:
        env |= {"HTTPS_PROXY": settings.proxy, "HTTP_PROXY": settings.proxy}
    return env
