"""Ctrl-C ends the program, whichever greenlet runs when it comes."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, gevent
from muster.hosts import interrupts

def pressed():
    gevent.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
    gevent.sleep(0.1)
    print("the other goes on")

def install():
    interrupts.reach_main(KeyboardInterrupt)

{install}
other = gevent.spawn(pressed)
try:
    gevent.sleep(60)
except KeyboardInterrupt:
    print("main is interrupted")
    other.join()
"""


@pytest.mark.parametrize("install", ["install()", "gevent.spawn(install).join()"], ids=["main", "another"])
def test_an_interrupt_reaches_the_main_greenlet(install: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(install=install)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.stdout.splitlines() == ["main is interrupted", "the other goes on"], ran.stderr
