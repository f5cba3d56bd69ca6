"""What a group's units wrote to the journal, without the requests by which the guard looks after its engine.

The guard asks `/health` and `/metrics` every few seconds and sends a canary to a quiet rank. On a quiet head every line
of the engine would be one of these.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from muster.on_host import run_command

Json = dict[str, Any]

# Answered requests from the host itself, and the engine's figures while it has nothing to do. What failed stays.
_POLLING = re.compile(
    r"127\.0\.0\.1:\d+ - \"(?:GET /(?:health|metrics)|POST "
    r"(?:/v1/(?:completions|embeddings|rerank|score)|/pooling|/classify)) HTTP/[\d.]+\" 200\b"
    r"|Avg prompt throughput: .*Running: 0 reqs, Waiting: 0 reqs"
)
_SECONDS = 20.0
_LONGEST = 2000
_CURSOR = re.compile(r"[A-Za-z0-9=;_-]{1,300}")
_FIELD, _LONGEST_FIELD = re.compile(r"[A-Z_]{1,60}"), 300
_MATCH = re.compile(r"[A-Z_]{1,60}=[A-Za-z0-9._-]{1,100}")


def main(request: Json) -> Json:
    """Return {lines: [{at, text, fields}], cursor}, oldest line first.

    Args:
        request: `units`, whose entries are read, of anything where there are `matches` and no units; `count`, of lines
            at most; `polling`, whether the guard's own requests are kept; `matches`, `NAME=value` each, of which an
            entry must have one; `fields`, names of those that lines are returned with; and where to begin: `after`, a
            cursor of an earlier answer, `age`, in seconds, or `time`, in seconds since the epoch. Without any of them,
            and with `age` or `time`, the newest `count` lines are returned; with `after` the next.

    Raises:
        OSError: journalctl cannot be run, or refuses; its own words. ValueError: no cursor, no field, no match.
    """
    fields, matches = request.get("fields", ()), request.get("matches", ())
    if not all(map(_FIELD.fullmatch, fields)) or not all(map(_MATCH.fullmatch, matches)):
        raise ValueError("no field of a journal")
    units, count, after = request["units"], int(request["count"]), request.get("after")
    if not units and not matches:
        return {"lines": [], "cursor": ""}
    argv = ["journalctl", "--no-pager", "--quiet", "--all", "--output=json"]
    argv.append("--output-fields=" + ",".join(["MESSAGE", *fields]))
    argv += [f"--unit={unit}" for unit in units]
    if after:
        if not _CURSOR.fullmatch(after):
            raise ValueError("no cursor of a journal")
        argv.append(f"--after-cursor={after}")
    else:
        argv.append("--reverse")
        begin = time.time() - float(request["age"]) if request.get("age") else request.get("time")
        argv += [f"--since=@{float(begin):.6f}"] if begin else []
    lines: list[Json] = []
    cursor = after or ""
    for entry in _entries([*argv, *matches]):
        if after or not cursor:  # forwards the last one read, backwards the first
            cursor = str(entry.get("__CURSOR") or cursor)
        text = _text(entry.get("MESSAGE"))
        if text.strip() and (request.get("polling") or not _POLLING.search(text)):
            line: Json = {"at": int(entry.get("__REALTIME_TIMESTAMP") or 0) / 1e6, "text": text}
            if fields:
                line["fields"] = {name: _text(entry.get(name))[:_LONGEST_FIELD] for name in fields}
            lines.append(line)
        if len(lines) >= count:
            break
    return {"lines": lines if after else lines[::-1], "cursor": cursor}


def _entries(argv: Sequence[str]) -> Iterator[Json]:
    """Yield the journal's entries as they come, until the reader has enough or the time is up."""
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=run_command.environment(),
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    late = threading.Timer(_SECONDS, run_command.kill, [child])
    late.start()
    try:
        for line in child.stdout:
            try:
                entry = json.loads(line)
            except ValueError:  # the last line of a journalctl that was killed
                continue
            yield entry
        errors = child.stderr.read(2000).decode("utf-8", "replace").strip()
        if child.wait(5) > 0 and errors:
            raise OSError(f"journalctl ended with {child.returncode}: {errors}")
    finally:
        late.cancel()
        run_command.kill(child)
        child.stdout.close()
        child.stderr.close()
        child.wait()


def _text(message: Any) -> str:
    """Return a message as text; journalctl writes one with control characters as a list of bytes."""
    if isinstance(message, list):
        message = bytes(byte for byte in message if isinstance(byte, int) and 0 <= byte < 256).decode(
            "utf-8", "replace"
        )
    return message.rstrip()[:_LONGEST] if isinstance(message, str) else ""
