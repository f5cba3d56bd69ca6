"""What vLLM's recipe catalogue takes from nightlies, images and git, and which release holds it.

Read from the wheel of vLLM 0.32.0, its model registry and what it requires, with transformers 5.19.0.
"""

from __future__ import annotations

import re

RELEASE = "0.32.0"
_NIGHTLIES_BELOW = (0, 29)
"""Floors of nightlies that are older than the release by some months; a newer one proves nothing."""
_IMAGES = frozenset({"gemma", "gemma4-unified", "hy3", "minimax-m3", "muse-glimmer", "stepfun37", "unlimited-ocr"})
"""Tags of vllm/vllm-openai whose architectures the release has."""
_PACKAGES = ("github.com/huggingface/transformers.git", "github.com/deepseek-ai/DeepGEMM.git", "vllm --pre")
"""What the release requires in a newer version, carries itself, or is."""

_TRANSCRIBE = re.compile(r"whisper|transcribe|fun-?asr|firered", re.IGNORECASE)
"""Names of models whose classes answer for audio alone (`supports_transcription_only`)."""


def only_transcribes(model: str) -> bool:
    """Whether a model answers /v1/audio/transcriptions and no completions."""
    return _TRANSCRIBE.search(model) is not None


def of_nightly(floor: str) -> bool:
    """Whether the release holds what a nightly above this floor was taken for."""
    match = re.fullmatch(r"(\d+)\.(\d+)(\.\d+)?", floor)
    return match is not None and (int(match[1]), int(match[2])) < _NIGHTLIES_BELOW


def of_image(image: str) -> bool:
    """Whether the release serves what an image was made for."""
    name, _, tag = image.partition(":")
    return name == "vllm/vllm-openai" and tag in _IMAGES


def of_package(command: str) -> bool:
    """Whether the release comes with what an installation's command brings."""
    return any(package in command for package in _PACKAGES)
