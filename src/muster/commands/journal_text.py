"""The journals of several hosts as one text, in the order of time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from muster.errors import Refusal

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d{1,6})([smhd])")


def since(text: str) -> dict[str, float]:
    """Return where a reader of journals begins: {age} of a duration, {time} of a point in time.

    Args:
        text: `90s`, `10m`, `2h`, `3d`, or a time in UTC as ISO 8601 writes it.

    Raises:
        Refusal: neither.
    """
    duration = _DURATION.fullmatch(text)
    if duration:
        return {"age": float(int(duration[1]) * _UNITS[duration[2]])}
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise Refusal(
            f"--since {text}",
            needed="a duration such as 10m, 2h or 3d, or a time in UTC",
            fix="--since 2026-11-26T13:00",
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return {"time": moment.timestamp()}


def merged(answers: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield every line of all hosts, oldest first, after its time and its host.

    Args:
        answers: host -> what `muster.on_host.read_journal` answered; errors are left out.
    """
    entries = [
        (entry["at"], host, entry["text"]) for host, answer in answers.items() for entry in answer.get("lines", ())
    ]
    for at, host, text in sorted(entries, key=lambda entry: entry[0]):
        when = datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        for line in text.splitlines():
            yield f"{when}  {host}  {line}"
