"""Lines of JSON between the control machine and a program that it keeps a session open to."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

_LINE_LIMIT = 65536


def lines(silence: float) -> Iterator[Json]:
    """Yield the lines of standard input until it ends, or is silent for so many seconds."""
    rest, heard = b"", time.monotonic()
    while True:
        left = heard + silence - time.monotonic()
        if left <= 0 or not select.select([0], [], [], left)[0]:
            return
        piece = os.read(0, _LINE_LIMIT)
        if not piece:
            return
        heard = time.monotonic()
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LINE_LIMIT:
            return
        yield from (json.loads(line) for line in lines if line.strip())


def say(answer: Json) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
