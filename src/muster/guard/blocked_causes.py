"""One word for why a host cannot start a rank, out of the sentence that its guard reports. Pure.

A report has had one form in every version of the guard, so that a guard of another plan is refused by name; it carries
the sentence alone. Whatever a host reports, the word is one of CAUSES.
"""

from __future__ import annotations

import re

_WORDS = (
    ("xid", r"fatal S?Xid: "),
    ("disk", r"\S+ has [\d.]+ GiB free, needed |\S+ cannot be read \("),
    ("plan", r"systemd started this guard by the unit of plan "),
    ("operator", r"stopped by an operator; "),
    ("weights", r"weights are "),
    ("processes", r"a process of the last generation |\d+ compute processes hold GPUs"),
    ("gpu", r"`nvidia-smi |(number of GPUs|NVLink fabric): "),
    ("port", r"port \d+ |control port \d+ |not listening yet$"),
    ("engine", r"\S+ is (missing; |not in PATH=)"),
    ("unchecked", r"the local checks have not run yet$"),
)
_CAUSES = tuple((cause, re.compile(pattern)) for cause, pattern in _WORDS)

OTHER = "other"
CAUSES = (*(cause for cause, _ in _WORDS), OTHER)


def cause_of(blocked: str) -> str:
    """Return the cause of a report's `blocked`; empty for a host that nothing blocks."""
    if not blocked:
        return ""
    return next((cause for cause, pattern in _CAUSES if pattern.match(blocked)), OTHER)
