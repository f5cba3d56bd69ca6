"""A release is resolved where no lock of it is; a lock that is there, or that another host has, stands."""

from __future__ import annotations

import base64
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from muster.on_host import resolve_engine

RELEASE = "/opt/muster/engines/r1"
FAKE = """\
#!{python}
import pathlib, sys
words = sys.argv[1:]
root = pathlib.Path({root!r})
if words[0] == "--version":
    print("uv 1")
elif (root / "fail").exists():
    sys.exit("error: no such version")
else:
    with open(root / "calls", "a") as log:
        log.write(" ".join(words) + "\\n")
    pathlib.Path(words[words.index("--output-file") + 1]).write_text((root / "answer").read_text())
"""


def lock(version: str, where: str) -> str:
    return (
        f'lock-version = "1.0"\n\n[[packages]]\nname = "vllm"\nversion = "{version}"\n'
        f'wheels = [{{ {where}, hashes = {{ sha256 = "{"1" * 64}" }} }}]\n'
    )


def ask(root: Path, **more: Any) -> dict[str, Any]:
    fake = FAKE.format(python=sys.executable, root=str(root))
    request = {
        "root": str(root),
        "path": RELEASE,
        "resolve": True,
        "text": "",
        "python": "3.12",
        "requirements": ["vllm==1"],
        "overrides": ["torch==2"],
        "install_args": ["--torch-backend", "cpu"],
        "env": {},
        "uv": "/opt/muster/uv/1/uv",
        "uv_payload": base64.b64encode(zlib.compress(fake.encode())).decode(),
        "python_dir": "/opt/muster/python",
        "cache_dir": "/var/cache/muster/uv",
    }
    return resolve_engine.main({**request, **more})


def test_a_release_is_resolved_once_and_sizes_are_found_where_nobody_tells_them(tmp_path: Path) -> None:
    wheel = tmp_path / "vllm-1-py3-none-any.whl"
    wheel.write_bytes(b"x" * 77)
    text = lock("1", f'url = "{wheel.as_uri()}"')
    (tmp_path / "answer").write_text(text)
    assert ask(tmp_path) == {"text": text, "sizes": {wheel.name: 77}}
    (called,) = (tmp_path / "calls").read_text().splitlines()
    assert "--format pylock.toml --generate-hashes" in called
    assert "--python 3.12" in called
    assert "--torch-backend cpu --override" in called
    (tmp_path / "answer").write_text(text.replace('version = "1"', 'version = "2"'))
    assert ask(tmp_path)["text"] == text
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    assert ask(tmp_path, resolve=False)["text"] == text


def test_the_lock_of_another_host_stands(tmp_path: Path) -> None:
    theirs = lock("1", 'url = "https://index.example/vllm-1-py3-none-any.whl", size = 5')
    (tmp_path / "answer").write_text(theirs.replace('version = "1"', 'version = "2"'))
    ask(tmp_path, text=theirs.replace('version = "1"', 'version = "0"'))
    assert ask(tmp_path, text=theirs) == {"text": theirs, "sizes": {}}
    assert not (tmp_path / "calls").exists()


def test_what_cannot_be_resolved_is_told_in_uvs_words_and_leaves_no_lock(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    with pytest.raises(OSError, match=r"`uv pip compile` ended with 1:\nerror: no such version"):
        ask(tmp_path)
    assert ask(tmp_path, resolve=False) == {"text": ""}


def test_a_package_without_a_hash_leaves_no_lock(tmp_path: Path) -> None:
    (tmp_path / "answer").write_text('lock-version = "1.0"\n[[packages]]\nname = "x"\nvcs = { url = "g" }\n')
    with pytest.raises(OSError, match="x has no file whose SHA-256 is known"):
        ask(tmp_path)
    assert ask(tmp_path, resolve=False) == {"text": ""}
