"""One installed engine: what uv puts into its virtual environment, and the directory named after it."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import urlsplit

from muster.errors import Refusal
from muster.plan import Release
from muster.settings import Settings


def release_of(settings: Settings, *, ray: bool) -> Release:
    """Return the release the settings ask for.

    Args:
        settings: of the group.
        ray: whether the strategy needs Ray; vLLM's wheel no longer requires it (since 0.18).

    Raises:
        Refusal: an index address that carries a password, which would end in world-readable places.
    """
    for url in filter(None, [settings.index_url, *settings.extra_index_urls, *settings.find_links, settings.proxy]):
        if urlsplit(url).password:
            raise Refusal(
                f"{urlsplit(url).hostname}: the address carries a password",
                needed="addresses without one: they stand in command lines and stamps",
                fix="put the credentials into a netrc file on the hosts",
            )
    pinned = {requirement.split("==")[0].strip() for requirement in settings.engine_requirements}
    requirements = list(settings.engine_requirements)
    if "vllm" not in pinned:
        requirements.insert(0, f"vllm=={settings.vllm_version}")
    if ray and "ray" not in pinned:
        requirements.append(f"ray=={settings.ray_version}")
    requirements += [extra for extra in (settings.deep_ep, settings.deep_gemm) if extra]
    content = [settings.python_version, requirements, settings.overrides, settings.torch_backend]
    name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]
    release = f"vllm-{settings.vllm_version}-py{settings.python_version}-{name}"
    return Release(
        id=release if settings.engine_path is None else settings.engine_path.strip("/").replace("/", "-"),
        path=settings.engine_path or f"{settings.root}/engines/{release}",
        managed=settings.engine_path is None,
        python=settings.python_version,
        requirements=tuple(requirements),
        overrides=tuple(settings.overrides),
        install_args=tuple(_install_args(settings)),
        env=_install_env(settings),
    )


def _install_args(settings: Settings) -> list[str]:
    argv: list[str] = []
    if settings.index_url:
        argv += ["--index-url", settings.index_url]
    for url in settings.extra_index_urls:
        argv += ["--extra-index-url", url]
    for place in settings.find_links:
        argv += ["--find-links", place]
    if settings.torch_backend:
        argv += ["--torch-backend", settings.torch_backend]
    return argv


def _install_env(settings: Settings) -> dict[str, str]:
    env = {"UV_PYTHON_INSTALL_DIR": f"{settings.root}/python", "UV_NO_PROGRESS": "1"}
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
