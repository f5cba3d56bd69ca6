"""What a person sees of a run: what it changes, one line a step; how far it is, in place on a terminal.

In a log, lines of progress come seldom: what replaces itself on a terminal would be hundreds of lines there. What a run
says before it is known to change anything is kept back, for a run that changes nothing prints one line.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
import gevent
from rich.console import Console
from rich.live import Live
from rich.text import Text

SELDOM = 20.0
"""Seconds between two lines of progress of one host in a log."""
_TICK = 0.5
_WORTH_SAYING = 1.0


class RunDisplay:
    """The output of one run.

    Args:
        verbose: print everything at once.
        console: where to; standard error where None.
    """

    def __init__(self, *, verbose: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._verbose = verbose
        self._kept: list[str] | None = None if verbose else []
        self._quiet = False
        self._live: Live | None = None
        self._ticker: gevent.Greenlet | None = None
        self._step, self._began = "", time.monotonic()
        self._progress: dict[str, str] = {}
        self._printed: dict[str, float] = {}

    def line(self, text: str, *, important: bool = False) -> None:
        """Print a line, or keep it back until it is known whether the run changes anything.

        Args:
            text: may hold terminal colours.
            important: a warning or an error: printed in a quiet run too.
        """
        if self._kept is not None and not important:
            self._kept.append(text)
        elif important or not self._quiet:
            self._print(text)

    def changes(self, something: bool) -> None:
        """Print what was kept back if the run changes something; else go on in silence."""
        kept, self._kept = self._kept or [], None
        self._quiet = not something and not self._verbose
        for text in kept:
            self.line(text)

    def step(self, name: str) -> None:
        """Begin a step, which is shown while it is under way."""
        self._step, self._began = name, time.monotonic()
        self._progress.clear()
        self._open()
        self._refresh()

    def step_done(self, name: str, hosts: Sequence[str]) -> None:
        """Print a step that has changed hosts."""
        self.line(f"{click.style('done', fg='green')}    {name} ({', '.join(hosts)}{self._took()})")

    def step_failed(self, name: str, host: str) -> None:
        """Print that a step has failed on a host."""
        self.line(f"{click.style('failed', fg='red')}  {name} ({host}{self._took()})", important=True)

    def progress(self, host: str, text: str) -> None:
        """Show how far a host is: in place on a terminal, now and then in a log."""
        if self._live is not None:
            self._progress[host] = text
            self._refresh()
            return
        now = time.monotonic()
        if self._verbose or now - self._printed.get(host, -SELDOM) >= SELDOM:
            self._printed[host] = now
            self._print(f"[{host}] {text}")

    def close(self) -> None:
        """Take away what was shown in place."""
        if self._ticker is not None:
            self._ticker.kill()
        if self._live is not None:
            self._live.stop()
        self._ticker = self._live = None

    def _took(self) -> str:
        seconds = time.monotonic() - self._began
        return f", {seconds:.0f} s" if seconds >= _WORTH_SAYING else ""

    def _open(self) -> None:
        if self._live is None and self._console.is_terminal and not self._verbose:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stderr=False)
            self._live.start()
            self._ticker = gevent.spawn(self._tick)

    def _tick(self) -> None:
        while True:
            gevent.sleep(_TICK)
            self._refresh()

    def _refresh(self) -> None:
        if self._live is not None:
            text = Text(f"{self._step}  {time.monotonic() - self._began:.0f} s", no_wrap=True, overflow="ellipsis")
            for host, line in self._progress.items():
                text.append(f"\n  {host}: {line}", style="dim")
            self._live.update(text, refresh=True)

    def _print(self, text: str) -> None:
        self._console.print(Text.from_ansi(text))
