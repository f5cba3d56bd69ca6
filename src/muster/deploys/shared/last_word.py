"""The last line of a run that failed: what failed, where, and what to do next.

pyinfra ends such a run with "No hosts remaining!", below which nobody looks for the reason. This line comes after it,
when the process ends.
"""

from __future__ import annotations

import atexit
from dataclasses import dataclass, field

import click


@dataclass
class LastWord:
    """What is said when the process ends; the first reason stands, for the others follow from it."""

    reasons: list[str] = field(default_factory=list)
    awaited: bool = False

    def keep(self, reason: str) -> None:
        """Keep a reason for the end of the run."""
        self.reasons.append(reason)

    def say_at_the_end(self) -> None:
        """Have the first reason, if there is one by then, printed when this process ends."""
        if not self.awaited:
            self.awaited = True
            atexit.register(self.say)

    def say(self) -> None:
        """Print the first reason, in red on a terminal."""
        if self.reasons:
            click.secho(f"muster: {self.reasons[0]}", fg="red", bold=True, err=True)


_last_word = LastWord()
keep, say_at_the_end = _last_word.keep, _last_word.say_at_the_end
