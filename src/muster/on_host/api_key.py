"""The API key on a host: one line `VLLM_API_KEY=<key>`, as systemd, the guard and these programs read it."""

from __future__ import annotations

import re

from muster.on_host import whole_files

NAME = "VLLM_API_KEY"
# Visible ASCII without quotes and backslash: systemd and every other reader of NAME=value lines take it literally.
KEY = re.compile(r"[!#-&(-\[\]-_a-~]{1,4096}")


def read(path: str) -> str:
    """Return the key in a host's file.

    Raises:
        OSError: there is no such file.
        ValueError: it holds anything but one line with a key; a group with a key never goes on without.
    """
    text = whole_files.read_start(path)
    if text is None:
        raise FileNotFoundError(2, "cannot be read", path)
    key = text[len(NAME) + 1 : -1]
    if text != f"{NAME}={key}\n" or not KEY.fullmatch(key):
        raise ValueError(f"{path} is not one line {NAME}=...; fix: deploy again, which writes it")
    return key
