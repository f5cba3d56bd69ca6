"""Ctrl-C, where connections are greenlets: it ends the program, not whichever greenlet runs when it comes.

Python runs a signal's handler in the greenlet that happens to run. An exception raised in one of paramiko's ends a
single connection: the command then says that a host could not be reached, and its exit status is another.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

import gevent


def reach_main(raised: Callable[[], BaseException]) -> None:
    """Have SIGINT raise an exception in the main greenlet, in which the program runs, from now on.

    Args:
        raised: makes the exception; called in the handler.
    """
    main = gevent.getcurrent()
    while main.parent is not None:
        main = main.parent

    def handle(_signal: int, _frame: FrameType | None) -> None:
        error = raised()
        if gevent.getcurrent() is main:
            raise error
        gevent.get_hub().loop.run_callback(main.throw, error)

    signal.signal(signal.SIGINT, handle)
